from typing import List, Union

from allennlp.common import JsonDict
from allennlp.data import Instance
from allennlp.predictors import Predictor

from spigot_allennlp.predictors.text_predictor import TextPredictor


@Predictor.register("sentence_pair")
class SentencePairPredictor(TextPredictor):
    """
    Classifies pairs of sentences. It takes plain text, `premise<TAB>hypothesis`; JSON lines, `{"premise": "...",
    "hypothesis": "..."}`, where a list of words may stand for either; or a file in the reader's own format: see
    `TextPredictor`, also for the parameters.
    """

    input_forms = 'premise<TAB>hypothesis, or {"premise": "...", "hypothesis": "..."}, either also as a list of words'

    def predict(self, premise: Union[str, List[str]], hypothesis: Union[str, List[str]]) -> JsonDict:
        """
        # Parameters

        premise, hypothesis : `Union[str, List[str]]`
            Text, or words.
        """
        return self.predict_json({"premise": premise, "hypothesis": hypothesis})

    def _load_text(self, line: str) -> JsonDict:
        sentences = line.split("\t")
        # Of more or fewer columns nobody knows which are the sentences.
        return dict(zip(("premise", "hypothesis"), sentences)) if len(sentences) == 2 else {"text": line}

    def _json_to_instance(self, json_dict: JsonDict) -> Instance:
        pair = []
        for name in ("premise", "hypothesis"):
            sentence = json_dict.get(name)
            tokens = self._tokens(words=sentence) if isinstance(sentence, list) else self._tokens(sentence)
            if tokens is None:
                raise self._refuse(json_dict)
            pair.append(tokens)
        self._refuse_keys(json_dict, "premise", "hypothesis")
        return self._dataset_reader.text_to_instance(*pair)
