from allennlp.predictors import Predictor

from spigot_allennlp.predictors.sentence_predictor import SentencePredictor


@Predictor.register("sentence_classifier")
class SentenceClassifierPredictor(SentencePredictor):
    """
    Classifies sentences: see `SentencePredictor`.
    """
