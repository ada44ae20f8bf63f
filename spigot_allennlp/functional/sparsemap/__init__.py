"""
SparseMAP: exact Euclidean projection onto the convex hull of structures, given their argmax.
"""

from spigot_allennlp.functional.sparsemap.active_set import CompiledOracle
from spigot_allennlp.functional.sparsemap.distribution import sparse_distribution
from spigot_allennlp.functional.sparsemap.projection import ActiveSet, active_set, sparsemap_project
from spigot_allennlp.functional.sparsemap.rounds import Oracle
from spigot_allennlp.functional.sparsemap.trees import TreeOracle

__all__ = [
    "ActiveSet",
    "CompiledOracle",
    "Oracle",
    "TreeOracle",
    "active_set",
    "sparse_distribution",
    "sparsemap_project",
]
