"""
Latent structures: stateless combinatorics with one interface.
"""

from spigot_allennlp.structures.arc_graph import ArcGraph
from spigot_allennlp.structures.categorical import Categorical
from spigot_allennlp.structures.constituency_tree import ConstituencyTree
from spigot_allennlp.structures.derivation import Derivation
from spigot_allennlp.structures.distribution import RelaxedStructureDistribution, StructureDistribution
from spigot_allennlp.structures.k_subset import KSubset
from spigot_allennlp.structures.labeled_arc_graph import LabeledArcGraph
from spigot_allennlp.structures.latent_structure import OPERATIONS, LatentStructure
from spigot_allennlp.structures.linear_chain import LinearChain
from spigot_allennlp.structures.nonprojective_tree import NonprojectiveTree
from spigot_allennlp.structures.product import Product
from spigot_allennlp.structures.projective_tree import ProjectiveTree
from spigot_allennlp.structures.semi_markov import SemiMarkov
from spigot_allennlp.structures.single_head import SingleHead
from spigot_allennlp.structures.tree import Tree
from spigot_allennlp.structures.undirected_tree import UndirectedTree

__all__ = [
    "OPERATIONS",
    "ArcGraph",
    "Categorical",
    "LabeledArcGraph",
    "LatentStructure",
    "LinearChain",
    "NonprojectiveTree",
    "Product",
    "ProjectiveTree",
    "RelaxedStructureDistribution",
    "SingleHead",
    "StructureDistribution",
    "Tree",
    "ConstituencyTree",
    "Derivation",
    "KSubset",
    "SemiMarkov",
    "UndirectedTree",
]
