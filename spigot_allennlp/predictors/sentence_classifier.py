import re

from allennlp.predictors import Predictor

from spigot_allennlp.predictors.sentence_predictor import SentencePredictor
from spigot_allennlp.predictors.text_predictor import TextPredictor


@Predictor.register("sentence_classifier")
class SentenceClassifierPredictor(SentencePredictor):
    """
    Classifies sentences: see `SentencePredictor`.
    """

    # A tree of SST or `label<TAB>sentence`, beside CoNLL-U and SDP.
    parsed_line = re.compile(rf"\(\d \(\d |\d\t|{TextPredictor.parsed_line.pattern}")
