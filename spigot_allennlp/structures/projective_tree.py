from spigot_allennlp.functional.projective import (
    projective_heads,
    projective_log_partition,
    projective_marginals,
    projective_sample,
    projective_top_k,
)
from spigot_allennlp.structures.latent_structure import LatentStructure
from spigot_allennlp.structures.tree import Tree


@LatentStructure.register("projective_tree")
class ProjectiveTree(Tree):
    """
    Projective dependency trees: no two arcs cross. Parts are `(batch, dependents, heads)`.

    Argmax by Eisner's algorithm (Eisner 1996), the log-partition and marginals by inside-outside over the same
    chart. O(n^3) time, O(n^2) memory for each sentence.
    """

    projective = True

    _best_heads = staticmethod(projective_heads)
    _tree_log_partition = staticmethod(projective_log_partition)
    _tree_marginals = staticmethod(projective_marginals)
    _sample_heads = staticmethod(projective_sample)
    _top_k_heads = staticmethod(projective_top_k)
