import json
import re
from typing import Any, List, Optional

from allennlp.common import JsonDict, Params
from allennlp.common.checks import ConfigurationError
from allennlp.common.util import sanitize
from allennlp.data import DatasetReader, Instance, Token, Tokenizer
from allennlp.models import Model
from allennlp.predictors import Predictor

from spigot_allennlp.checks import refuse_unknown_keys
from spigot_allennlp.data.text_files import parse_json
from spigot_allennlp.data.tokenizers.offline_spacy import OfflineSpacyTokenizer

# Text may begin with a brace too, but not with what follows it in an object.
_JSON_OBJECT = re.compile(r"\{\s*[\"}]")


class TextPredictor(Predictor):
    """
    What all predictors share. They take plain text; JSON lines; or, with `allennlp predict --use-dataset-reader`, a
    file in the reader's own format. Blank lines are skipped. They give JSON, one object a line.

    # Parameters

    model : `Model`
    dataset_reader : `DatasetReader`
    tokenizer : `Tokenizer`, optional (default = `offline_spacy`)
        For text that is not tokenised.

    # Errors

    `ConfigurationError` for input that is none of the above.
    """

    # What a line may be, for errors.
    input_forms: str

    def __init__(self, model: Model, dataset_reader: DatasetReader, tokenizer: Tokenizer = None, **kwargs: Any) -> None:
        refuse_unknown_keys(self, kwargs)
        super().__init__(model, dataset_reader, **kwargs)
        # What `--predictor-args` gives is plain JSON.
        if isinstance(tokenizer, (str, dict)):
            tokenizer = Tokenizer.from_params(tokenizer if isinstance(tokenizer, str) else Params(tokenizer))
        self._tokenizer = tokenizer or OfflineSpacyTokenizer()
        self._lines_loaded = 0

    def load_line(self, line: str) -> JsonDict:
        self._lines_loaded += 1
        line = line.strip()
        if not _is_text(line):
            # As Python reads from a terminal or a pipe, it lets other bytes pass.
            raise ConfigurationError(f"input line {self._lines_loaded} (not counting blank ones) is not valid UTF-8")
        if not _JSON_OBJECT.match(line):
            return self._load_text(line)
        try:
            return parse_json(line)
        except ValueError as error:
            raise ConfigurationError(
                f"input line {self._lines_loaded} (not counting blank ones) begins with '{{' but is not JSON: {error}. "
                f"Valid: {self.input_forms}"
            ) from None

    def _load_text(self, line: str) -> JsonDict:
        """The JSON for a line of plain text."""
        raise NotImplementedError

    def dump_line(self, outputs: JsonDict) -> str:
        return json.dumps(outputs, ensure_ascii=False) + "\n"

    def _tokens(self, sentence: Any = None, words: Any = None) -> Optional[List[Token]]:
        """Those of a text or, where there is none, of a list of words; `None` where there are none at all."""
        if _is_text(sentence) and words is None:
            return self._tokenizer.tokenize(sentence) or None
        if sentence is None and isinstance(words, list) and all(_is_text(word) and word for word in words):
            return [Token(word) for word in words] or None
        return None

    def _refuse(self, json_dict: JsonDict) -> ConfigurationError:
        return ConfigurationError(
            f"nothing to parse in {json.dumps(json_dict)[:200]}. Valid: {self.input_forms}, with at least one word"
        )

    def predict_instance(self, instance: Instance) -> JsonDict:
        return self.predict_batch_instance([instance])[0]

    def predict_batch_instance(self, instances: List[Instance]) -> List[JsonDict]:
        for instance in instances:
            self._dataset_reader.apply_token_indexers(instance)
        outputs = self._model.forward_on_instances(instances)
        # Text that was typed in has no id.
        known = [{name: value for name, value in output.items() if value is not None} for output in outputs]
        return sanitize(known)


def _is_text(value: Any) -> bool:
    """Whether it is a string, without halves of characters, which neither spaCy takes nor a file."""
    try:
        return isinstance(value, str) and value.encode("utf-8") is not None
    except UnicodeEncodeError:
        return False
