from spigot_allennlp.functional import eisner
from spigot_allennlp.structures.latent_structure import LatentStructure
from spigot_allennlp.structures.tree import Tree


@LatentStructure.register("projective_tree")
class ProjectiveTree(Tree):
    """
    Projective dependency trees: no two arcs cross. Parts are `(batch, dependents, heads)`.

    Argmax by Eisner's algorithm (Eisner 1996), the log-partition and marginals by inside-outside over the same
    chart. O(n^3) time, O(n^2) memory for each sentence.
    """

    _best_heads = staticmethod(eisner.projective_heads)
    _tree_log_partition = staticmethod(eisner.projective_log_partition)
    _tree_marginals = staticmethod(eisner.projective_marginals)
    _sample_heads = staticmethod(eisner.projective_sample)
    _top_k_heads = staticmethod(eisner.projective_top_k)
