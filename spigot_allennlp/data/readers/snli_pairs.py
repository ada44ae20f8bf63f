import logging
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Optional, Union

from allennlp.common.checks import ConfigurationError
from allennlp.data import DatasetReader, Field, Instance, Token, TokenIndexer, Tokenizer
from allennlp.data.fields import LabelField, MetadataField, TextField
from allennlp.data.token_indexers import SingleIdTokenIndexer

from spigot_allennlp.checks import at_least_one, refuse_unknown_keys
from spigot_allennlp.data.sentence_length import MAX_SENTENCE_LENGTH, length_problem
from spigot_allennlp.data.text_files import malformed, parse_json, read_lines

logger = logging.getLogger(__name__)

LABELS = ("entailment", "neutral", "contradiction")
_NO_CONSENSUS = "-"
_KEYS = ("gold_label", "sentence1", "sentence2")


class SentencePair(NamedTuple):
    """One line of a file: two sentences, not tokenised, and the label, `None` where its annotators disagreed."""

    premise: str
    hypothesis: str
    label: Optional[str]
    line: int


@DatasetReader.register("snli_pairs")
class SnliPairsDatasetReader(DatasetReader):
    """
    Reads the JSON lines of SNLI (Bowman et al. 2015) and MultiNLI: `{"gold_label": "neutral", "sentence1": "Dogs run.",
    "sentence2": "Cats run."}`; other keys are of no account. Pairs whose annotators found no consensus (`gold_label`
    `-`) are left out, and their number is logged. The fields:

    - `premise`, `hypothesis`: `TextField`s of the words.
    - `label`: `LabelField`: `entailment`, `neutral` or `contradiction`. Only where it is known.
    - `metadata`: `"premise_words"` and `"hypothesis_words"`.

    # Parameters

    token_indexers : `Dict[str, TokenIndexer]`, optional (default = `{"tokens": SingleIdTokenIndexer()}`)
    tokenizer : `Tokenizer`, optional (default = `offline_spacy`)
    max_sentence_length : `int`, optional (default = `1000`)
        In words. A longer sentence is refused, in a file and in what is to be predicted: memory grows with its square.

    # Errors

    `ConfigurationError` with file and line: what is no JSON object, missing keys, sentences without words or
    with too many, other labels; and for a file without labelled pairs.
    """

    def __init__(
        self,
        token_indexers: Optional[dict[str, TokenIndexer]] = None,
        tokenizer: Optional[Tokenizer] = None,
        max_sentence_length: int = MAX_SENTENCE_LENGTH,
        **kwargs,
    ) -> None:
        refuse_unknown_keys(self, kwargs)
        super().__init__(manual_distributed_sharding=True, manual_multiprocess_sharding=True, **kwargs)
        self._token_indexers = token_indexers or {"tokens": SingleIdTokenIndexer()}
        # By its name: the predictors, where it lives, know the readers, not the other way round.
        self._max_sentence_length = at_least_one("max_sentence_length", max_sentence_length)
        self._tokenizer = tokenizer or Tokenizer.by_name("offline_spacy")()

    def _read(self, file_path: str) -> Iterator[Instance]:
        for premise, hypothesis, label, line in self.shard_iterable(self._read_pairs(file_path)):
            try:
                instance = self.text_to_instance(premise, hypothesis, label)
            except ConfigurationError as error:
                raise malformed(file_path, line, error.message) from None
            yield instance

    def _read_pairs(self, file_path: str) -> Iterator[SentencePair]:
        found, without_label = False, 0
        for number, line in enumerate(read_lines(file_path), 1):
            if not line.strip():
                continue
            try:
                pair = _parse(line, number)
            except ValueError as error:
                raise malformed(file_path, number, str(error)) from None
            if pair.label is None:
                without_label += 1
            else:
                found = True
                yield pair
        if not found:
            raise ConfigurationError(f"{file_path}: the file holds no labelled pairs ({without_label} with label '-')")
        logger.info("%s: %d pairs without consensus (gold_label '-') were left out", file_path, without_label)

    def text_to_instance(
        self,
        premise: Union[str, Sequence[Union[str, Token]]],
        hypothesis: Union[str, Sequence[Union[str, Token]]],
        label: Optional[str] = None,
    ) -> Instance:
        """
        # Parameters

        premise, hypothesis : `Union[str, Sequence[Union[str, Token]]]`
            Words or tokens, or text to tokenise.
        label : `str`, optional (default = `None`)
        """
        sentences = {"premise": self._tokens(premise), "hypothesis": self._tokens(hypothesis)}
        fields: dict[str, Field] = {}
        for name, tokens in sentences.items():
            if not tokens:
                raise ConfigurationError(f"the {name} has no words; a sentence needs at least one")
            problem = length_problem(len(tokens), self._max_sentence_length)
            if problem:
                raise ConfigurationError(f"{name}: {problem}; it begins with {' '.join(map(str, tokens[:5]))!r}")
            fields[name] = TextField(tokens)
        words = {f"{name}_words": [token.text for token in tokens] for name, tokens in sentences.items()}
        fields["metadata"] = MetadataField(words)
        if label is not None:
            fields["label"] = LabelField(label)
        return Instance(fields)

    def _tokens(self, sentence: Union[str, Sequence[Union[str, Token]]]) -> list[Token]:
        if isinstance(sentence, str):
            return self._tokenizer.tokenize(sentence)
        return [token if isinstance(token, Token) else Token(token) for token in sentence]

    def apply_token_indexers(self, instance: Instance) -> None:
        for name in ("premise", "hypothesis"):
            instance[name].token_indexers = self._token_indexers


def _parse(line: str, number: int) -> SentencePair:
    try:
        entry = parse_json(line)
    except ValueError as error:
        raise ValueError(f"the line is not JSON: {error}") from None
    if not isinstance(entry, dict):
        raise ValueError(f"{_shorten(entry)} is no object; valid: an object with the keys {', '.join(_KEYS)}")
    missing = [key for key in _KEYS if key not in entry]
    if missing:
        found = ", ".join(map(repr, entry)) or "none"
        raise ValueError(f"the key {', '.join(map(repr, missing))} is missing; found {_shorten(found, quote=False)}")
    label, *sentences = (entry[key] for key in _KEYS)
    for key, sentence in zip(_KEYS[1:], sentences):
        if not isinstance(sentence, str) or not sentence.strip():
            raise ValueError(f"'{key}' is {_shorten(sentence)}; valid: a sentence of at least one word")
    if label not in (*LABELS, _NO_CONSENSUS):
        valid = ", ".join(map(repr, (*LABELS, _NO_CONSENSUS)))
        raise ValueError(f"gold_label is {_shorten(label)}; valid: {valid}")
    return SentencePair(*sentences, None if label == _NO_CONSENSUS else label, number)


def _shorten(value: Any, quote: bool = True) -> str:
    text = repr(value) if quote else value
    return text if len(text) <= 60 else text[:60] + "..."
