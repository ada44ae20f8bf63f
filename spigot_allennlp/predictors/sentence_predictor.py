from typing import List

from allennlp.common import JsonDict
from allennlp.data import Instance

from spigot_allennlp.predictors.text_predictor import TextPredictor


class SentencePredictor(TextPredictor):
    """
    What the predictors for single sentences share. They take plain text, one sentence a line; JSON lines,
    `{"sentence": "..."}` or `{"tokens": ["...", ...]}`; or a file in the reader's own format: see `TextPredictor`, also
    for the parameters.
    """

    input_forms = 'plain text, {"sentence": "..."} or {"tokens": ["...", ...]}'

    def predict(self, sentence: str) -> JsonDict:
        """
        # Parameters

        sentence : `str`
            Not tokenised.
        """
        return self.predict_json({"sentence": sentence})

    def predict_tokenized(self, words: List[str]) -> JsonDict:
        return self.predict_json({"tokens": words})

    def _load_text(self, line: str) -> JsonDict:
        return {"sentence": line}

    def _json_to_instance(self, json_dict: JsonDict) -> Instance:
        tokens = self._tokens(json_dict.get("sentence"), json_dict.get("tokens"))
        if tokens is None:
            raise self._refuse(json_dict)
        return self._dataset_reader.text_to_instance(tokens)
