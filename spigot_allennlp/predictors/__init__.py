"""
Predictors.
"""

from spigot_allennlp.data.tokenizers.offline_spacy import OfflineSpacyTokenizer
from spigot_allennlp.predictors.dependency_graph import DependencyGraphPredictor
from spigot_allennlp.predictors.sentence_classifier import SentenceClassifierPredictor
from spigot_allennlp.predictors.sentence_pair import SentencePairPredictor
from spigot_allennlp.predictors.sentence_predictor import SentencePredictor
from spigot_allennlp.predictors.text_predictor import TextPredictor

__all__ = [
    "DependencyGraphPredictor",
    "OfflineSpacyTokenizer",
    "SentenceClassifierPredictor",
    "SentencePairPredictor",
    "SentencePredictor",
    "TextPredictor",
]
