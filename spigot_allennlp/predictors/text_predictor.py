import json
import logging
import re
import unicodedata
from collections import Counter
from typing import Any, Iterator, List, Optional, Set

from allennlp.common import JsonDict, Params
from allennlp.common.checks import ConfigurationError
from allennlp.common.util import sanitize
from allennlp.data import DatasetReader, Field, Instance, Token, Tokenizer
from allennlp.data.fields import TextField
from allennlp.data.token_indexers import SingleIdTokenIndexer, TokenCharactersIndexer
from allennlp.models import Model
from allennlp.predictors import Predictor

from spigot_allennlp.checks import refuse_unknown_keys
from spigot_allennlp.data.sentence import Sentence
from spigot_allennlp.data.text_files import malformed, parse_json, read_lines, shorten
from spigot_allennlp.data.tokenizers.offline_spacy import OfflineSpacyTokenizer

logger = logging.getLogger(__name__)

# Text may begin with a brace too, but not with what follows it in an object.
_JSON_OBJECT = re.compile(r"\{\s*[\"}]")

# Lines of CoNLL-U and SDP.
_PARSED_LINE = re.compile(
    r"\d+(?:[-.]\d+)?\t[^\t]*\t[^\t]*\t|#SDP \d{4}\s*$|#\d+\s*$|#\s*(?:sent_id|text)\s*=|#\s*(?:newdoc|newpar)\b"
)

# A script counts as known where this part of the words that a model knows is written in it.
_KNOWN_SCRIPT = 0.01


class Input(dict):
    """
    What a line, or a sentence of it, gives to a model, as JSON. It remembers the line's number, the line itself where
    it is text and not JSON, the sentence and the instance that were made of it, or why there are none.
    """

    line: Optional[int] = None
    text: Optional[str] = None
    parsed: Optional[Sentence] = None
    instance: Optional[Instance] = None
    problem: Optional[str] = None


class TextPredictor(Predictor):
    """
    What all predictors share. They take plain text; JSON lines; or, with `allennlp predict --use-dataset-reader`, a
    file in the reader's own format. Blank lines are skipped. They give JSON, one object a line.

    # Parameters

    model : `Model`
        Model to predict with.
    dataset_reader : `DatasetReader`
        Reader that makes instances.
    tokenizer : `Tokenizer`, optional (default = the dataset reader's, or `offline_spacy`)
        Tokenizer of plain text.
    skip_invalid_lines : `bool`, optional (default = `False`)
        Whether `allennlp predict` goes on after a line that it cannot read. It then logs a warning with the line's
        number, and in JSON output `{"line": 7, "error": "..."}` takes the place of a prediction.

    # Errors

    `ConfigurationError` for any other input, by `allennlp predict` with file and line; for a file
    without input; for text that is mostly in a script in which the model knows no words.
    """

    # What a line may be, for errors.
    input_forms: str

    # What a line of the dataset reader's own format looks like.
    parsed_line: "re.Pattern[str]" = _PARSED_LINE

    def __init__(
        self,
        model: Model,
        dataset_reader: DatasetReader,
        tokenizer: Tokenizer = None,
        skip_invalid_lines: bool = False,
        **kwargs: Any,
    ) -> None:
        refuse_unknown_keys(self, kwargs)
        super().__init__(model, dataset_reader, **kwargs)
        # What `--predictor-args` gives is plain JSON.
        if isinstance(tokenizer, (str, dict)):
            tokenizer = Tokenizer.from_params(tokenizer if isinstance(tokenizer, str) else Params(tokenizer))
        readers_own = getattr(dataset_reader, "tokenize", None)
        self._tokenizer = tokenizer or (None if readers_own else OfflineSpacyTokenizer())
        self._tokenize = self._tokenizer.tokenize if self._tokenizer else readers_own
        self._skip_invalid_lines = skip_invalid_lines
        self._lines_loaded = 0
        self._known_scripts: Optional[Set[str]] = None

    def read_inputs(self, input_file: str) -> Iterator[JsonDict]:
        """
        What `allennlp predict` predicts on: the inputs of a file of text or JSON lines, read as they are asked for.

        # Parameters

        input_file : `str`
            A path, also of a compressed file (`.gz`, `.bz2`), or `-` for the standard input.
        """
        name = "standard input" if input_file == "-" else input_file
        found, skipped = False, []
        for number, line in enumerate(read_lines(input_file), 1):
            if not line or line.isspace():
                continue
            found = True
            try:
                inputs = self._split(self._parse(line, "the line"))
                for entry in inputs:
                    entry.instance = self._to_instance(entry)
            except ConfigurationError as error:
                if not self._skip_invalid_lines:
                    raise malformed(name, number, error.message) from None
                logger.warning("%s:%d: skipped: %s", name, number, error.message)
                skipped.append(number)
                (invalid,) = inputs = [Input()]
                invalid.line, invalid.problem = number, error.message
            yield from inputs
        if not found:
            raise ConfigurationError(f"{name}: nothing to predict on: no line has text. Valid: {self.input_forms}")
        if skipped:
            logger.warning("%s: skipped %d lines: %s", name, len(skipped), shorten(skipped, 200))

    def load_line(self, line: str) -> JsonDict:
        self._lines_loaded += 1
        if self._lines_loaded == 1:
            line = line.removeprefix("\ufeff")
        return self._parse(line, f"input line {self._lines_loaded} (not counting blank ones)")

    def _parse(self, line: str, subject: str) -> Input:
        line = line.strip()
        if not _is_text(line):
            # As Python reads from a terminal or a pipe, it lets other bytes pass.
            raise ConfigurationError(f"{subject} is not valid UTF-8")
        if self.parsed_line.match(line):
            raise ConfigurationError(
                f"{subject} is not text but one of a file in the dataset reader's own format; for such a file add "
                f"--use-dataset-reader to the command. Valid without it: {self.input_forms}"
            )
        if not _JSON_OBJECT.match(line):
            entry = Input(self._load_text(line))
            entry.text = line
            return entry
        try:
            return Input(parse_json(line))
        except ValueError as error:
            raise ConfigurationError(
                f"{subject} begins with '{{' but is not JSON: {error}. Valid: {self.input_forms}"
            ) from None

    def _load_text(self, line: str) -> JsonDict:
        """The JSON for a line of plain text."""
        raise NotImplementedError

    def _split(self, entry: Input) -> List[Input]:
        """The inputs that a line is made of."""
        return [entry]

    def dump_line(self, outputs: JsonDict) -> str:
        return json.dumps(outputs, ensure_ascii=False) + "\n"

    def _tokens(self, sentence: Any = None, words: Any = None) -> Optional[List[Token]]:
        """Those of a text or, where there is none, of a list of words; `None` where there are none at all."""
        if _is_text(sentence) and words is None:
            return self._tokenize(sentence) or None
        if sentence is None and isinstance(words, list) and all(_is_text(word) and word for word in words):
            return [Token(word) for word in words] or None
        return None

    def _refuse(self, json_dict: JsonDict, reason: str = "") -> ConfigurationError:
        given = json.dumps(json_dict)
        given = given if len(given) <= 200 else given[:200] + "..."
        return ConfigurationError(
            f"nothing to parse in {given}{reason}. Valid: {self.input_forms}, with at least one word"
        )

    def _refuse_keys(self, json_dict: JsonDict, *valid: str) -> None:
        """Refuses a key of the input that is not a valid one, with a `ConfigurationError`."""
        unknown = [key for key in json_dict if key not in valid]
        if unknown:
            names = ", ".join(map(repr, valid))
            raise self._refuse(
                json_dict,
                f": unknown key {shorten(unknown[0])}; valid: {names} (a file in the dataset reader's own format needs "
                "--use-dataset-reader)",
            )

    def _to_instance(self, json_dict: JsonDict) -> Instance:
        known = getattr(json_dict, "instance", None)
        if known is not None:
            return known
        instance = self._json_to_instance(json_dict)
        self._check_script(instance)
        return instance

    def _check_script(self, instance: Instance) -> None:
        """Refuses a text whose letters the model cannot know, with a `ConfigurationError`."""
        if self._known_scripts is None:
            self._known_scripts = self._scripts_of_vocabulary()
        text = " ".join(words for field in instance.fields.values() for words in _words_of(field))
        scripts = Counter(map(_script, filter(str.isalpha, text))) if not text.isascii() else {}
        unknown = {script: count for script, count in scripts.items() if script not in self._known_scripts}
        if self._known_scripts and 2 * sum(unknown.values()) > sum(scripts.values()):
            raise ConfigurationError(
                f"most letters of {shorten(text)} are {max(unknown, key=unknown.get)}; the model knows words in "
                f"{', '.join(sorted(self._known_scripts))} only: is this text in the language that it was trained on?"
            )

    def _scripts_of_vocabulary(self) -> Set[str]:
        """Empty where the vocabulary does not tell: with a transformer, for example."""
        indexers = getattr(self._dataset_reader, "_token_indexers", {}).values()
        words: List[str] = []
        for indexer in indexers:
            if getattr(indexer, "_feature_name", None) == "text" and indexer.namespace:
                words += self._model.vocab.get_token_to_index_vocabulary(indexer.namespace)
            elif not isinstance(indexer, (SingleIdTokenIndexer, TokenCharactersIndexer)):
                return set()
        letters = (next(filter(str.isalpha, word), None) for word in words)
        scripts = Counter(_script(letter) for letter in letters if letter)
        return {script for script, count in scripts.items() if count >= _KNOWN_SCRIPT * sum(scripts.values())}

    def predict_json(self, inputs: JsonDict) -> JsonDict:
        return self.predict_batch_json([inputs])[0]

    def predict_batch_json(self, inputs: List[JsonDict]) -> List[JsonDict]:
        problems = [getattr(entry, "problem", None) for entry in inputs]
        instances = [self._to_instance(entry) for entry, problem in zip(inputs, problems) if problem is None]
        outputs = iter(self.predict_batch_instance(instances) if instances else [])
        return [
            next(outputs) if problem is None else {"line": entry.line, "error": problem}
            for entry, problem in zip(inputs, problems)
        ]

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


def _words_of(field: Field) -> Iterator[str]:
    return (token.text for token in field.tokens) if isinstance(field, TextField) else iter(())


def _script(letter: str) -> str:
    """`LATIN`, `CYRILLIC`, `CJK` and so on: the first word of its name in Unicode."""
    return unicodedata.name(letter, "unnamed").split()[0]
