"""
Models.
"""

from spigot_allennlp.models.latent_cluster_classifier import LatentClusterClassifier
from spigot_allennlp.models.latent_tree_classifier import LatentTreeClassifier
from spigot_allennlp.models.latent_tree_entailment import LatentTreeEntailment
from spigot_allennlp.models.latent_tree_evaluator import LatentTreeEvaluator
from spigot_allennlp.models.semantic_then_sentiment import SemanticThenSentiment
from spigot_allennlp.models.syntactic_parser import SyntacticParser
from spigot_allennlp.models.syntactic_then_semantic import SyntacticThenSemantic

__all__ = [
    "LatentClusterClassifier",
    "LatentTreeClassifier",
    "LatentTreeEntailment",
    "LatentTreeEvaluator",
    "SemanticThenSentiment",
    "SyntacticParser",
    "SyntacticThenSemantic",
]
