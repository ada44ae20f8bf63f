"""
Predictors.
"""

from spigot_allennlp.predictors.dependency_graph import DependencyGraphPredictor
from spigot_allennlp.predictors.offline_tokenizer import OfflineSpacyTokenizer
from spigot_allennlp.predictors.sentence_classifier import SentenceClassifierPredictor
from spigot_allennlp.predictors.sentence_predictor import SentencePredictor

__all__ = ["DependencyGraphPredictor", "OfflineSpacyTokenizer", "SentenceClassifierPredictor", "SentencePredictor"]
