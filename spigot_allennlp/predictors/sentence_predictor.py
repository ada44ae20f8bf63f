import json
import re
from typing import Any, List

from allennlp.common import JsonDict, Params
from allennlp.common.checks import ConfigurationError
from allennlp.common.util import sanitize
from allennlp.data import DatasetReader, Instance, Token, Tokenizer
from allennlp.models import Model
from allennlp.predictors import Predictor

from spigot_allennlp.predictors.offline_tokenizer import OfflineSpacyTokenizer
from spigot_allennlp.unknown_keys import refuse_unknown_keys

# Text may begin with a brace too, but not with what follows it in an object.
_JSON_OBJECT = re.compile(r"\{\s*[\"}]")


class SentencePredictor(Predictor):
    """
    What the predictors for single sentences share. They take plain text, one sentence a line; JSON lines,
    `{"sentence": "..."}` or `{"tokens": ["...", ...]}`; or, with `allennlp predict --use-dataset-reader`, a file in the
    reader's own format. Blank lines are skipped. They give JSON, one object a line.

    # Parameters

    model : `Model`
    dataset_reader : `DatasetReader`
    tokenizer : `Tokenizer`, optional (default = `offline_spacy`)
        For text that is not tokenised.

    # Errors

    `ConfigurationError` for input that is none of the above.
    """

    def __init__(self, model: Model, dataset_reader: DatasetReader, tokenizer: Tokenizer = None, **kwargs: Any) -> None:
        refuse_unknown_keys(self, kwargs)
        super().__init__(model, dataset_reader, **kwargs)
        # What `--predictor-args` gives is plain JSON.
        if isinstance(tokenizer, (str, dict)):
            tokenizer = Tokenizer.from_params(tokenizer if isinstance(tokenizer, str) else Params(tokenizer))
        self._tokenizer = tokenizer or OfflineSpacyTokenizer()
        self._lines_loaded = 0

    def predict(self, sentence: str) -> JsonDict:
        """
        # Parameters

        sentence : `str`
            Not tokenised.
        """
        return self.predict_json({"sentence": sentence})

    def predict_tokenized(self, words: List[str]) -> JsonDict:
        return self.predict_json({"tokens": words})

    def load_line(self, line: str) -> JsonDict:
        self._lines_loaded += 1
        line = line.strip()
        if not _JSON_OBJECT.match(line):
            return {"sentence": line}
        try:
            return json.loads(line)
        except json.JSONDecodeError as error:
            raise ConfigurationError(
                f"input line {self._lines_loaded} (not counting blank ones) begins with '{{' but is not JSON: {error}. "
                'Valid: plain text, {"sentence": "..."} or {"tokens": ["...", ...]}'
            ) from None

    def dump_line(self, outputs: JsonDict) -> str:
        return json.dumps(outputs, ensure_ascii=False) + "\n"

    def _json_to_instance(self, json_dict: JsonDict) -> Instance:
        sentence, words = json_dict.get("sentence"), json_dict.get("tokens")
        if isinstance(sentence, str) and words is None:
            tokens = self._tokenizer.tokenize(sentence)
        elif isinstance(words, list) and all(isinstance(word, str) and word for word in words):
            tokens = [Token(word) for word in words]
        else:
            tokens = []
        if not tokens:
            raise ConfigurationError(
                f"nothing to parse in {json.dumps(json_dict)[:200]}. Valid: plain text, "
                '{"sentence": "..."} or {"tokens": ["...", ...]}, with at least one word'
            )
        return self._dataset_reader.text_to_instance(tokens)

    def predict_instance(self, instance: Instance) -> JsonDict:
        return self.predict_batch_instance([instance])[0]

    def predict_batch_instance(self, instances: List[Instance]) -> List[JsonDict]:
        for instance in instances:
            self._dataset_reader.apply_token_indexers(instance)
        outputs = self._model.forward_on_instances(instances)
        # Text that was typed in has no id.
        known = [{name: value for name, value in output.items() if value is not None} for output in outputs]
        return sanitize(known)
