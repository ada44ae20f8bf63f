"""
Predictors.
"""

from spigot_allennlp.predictors.dependency_graph import DependencyGraphPredictor
from spigot_allennlp.predictors.offline_tokenizer import OfflineSpacyTokenizer

__all__ = ["DependencyGraphPredictor", "OfflineSpacyTokenizer"]
