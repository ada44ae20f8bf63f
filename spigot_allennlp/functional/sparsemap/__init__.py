"""
SparseMAP: exact Euclidean projection onto the convex hull of structures, given their argmax.
"""

from spigot_allennlp.functional.sparsemap.active_set import CompiledOracle
from spigot_allennlp.functional.sparsemap.projection import ActiveSet, active_set, sparsemap_project
from spigot_allennlp.functional.sparsemap.trees import TreeOracle

__all__ = ["ActiveSet", "CompiledOracle", "TreeOracle", "active_set", "sparsemap_project"]
