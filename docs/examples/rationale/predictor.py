from allennlp.common import JsonDict
from allennlp.data import Instance, Token
from allennlp.predictors import Predictor


@Predictor.register("rationale")
class RationalePredictor(Predictor):
    """
    Takes plain text, a line each, with blanks between words.
    """

    def load_line(self, line: str) -> JsonDict:
        return {"text": line.strip()}

    def _json_to_instance(self, json_dict: JsonDict) -> Instance:
        return self._dataset_reader.text_to_instance([Token(word) for word in json_dict["text"].split()])
