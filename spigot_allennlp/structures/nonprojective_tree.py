from spigot_allennlp.functional.nonprojective import (
    nonprojective_heads,
    nonprojective_log_partition,
    nonprojective_marginals,
    nonprojective_sample,
    nonprojective_top_k,
)
from spigot_allennlp.structures.latent_structure import LatentStructure
from spigot_allennlp.structures.tree import Tree


@LatentStructure.register("nonprojective_tree")
class NonprojectiveTree(Tree):
    """
    All dependency trees, whether arcs cross or not. Parts are `(batch, dependents, heads)`.

    Argmax by the Chu-Liu-Edmonds algorithm, in O(n^2), with the single root found exactly (Gabow and Tarjan 1984;
    Zmigrod et al. 2020). The log-partition and marginals by the matrix-tree theorem (Koo et al. 2007), in O(n^3).
    """

    projective = False

    _best_heads = staticmethod(nonprojective_heads)
    _tree_log_partition = staticmethod(nonprojective_log_partition)
    _tree_marginals = staticmethod(nonprojective_marginals)
    _sample_heads = staticmethod(nonprojective_sample)
    _top_k_heads = staticmethod(nonprojective_top_k)
