"""
Metrics, reduced over workers.
"""

from spigot_allennlp.metrics.accuracy import Accuracy
from spigot_allennlp.metrics.edge_scores import EnhancedDependencyScores
from spigot_allennlp.metrics.estimator_diagnostics import EstimatorDiagnostics
from spigot_allennlp.metrics.graph_f1 import DependencyGraphF1
from spigot_allennlp.metrics.masked_mean import MaskedMean
from spigot_allennlp.metrics.reduced_once import ReducedOnce
from spigot_allennlp.metrics.tree_scores import TreeScores
from spigot_allennlp.metrics.v_measure import VMeasure

__all__ = [
    "Accuracy",
    "DependencyGraphF1",
    "EnhancedDependencyScores",
    "EstimatorDiagnostics",
    "MaskedMean",
    "ReducedOnce",
    "TreeScores",
    "VMeasure",
]
