import logging
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Optional, Union

from allennlp.common.checks import ConfigurationError
from allennlp.data import DatasetReader, Field, Instance, Token, TokenIndexer, Tokenizer
from allennlp.data.fields import LabelField, MetadataField, TextField
from allennlp.data.token_indexers import SingleIdTokenIndexer

from spigot_allennlp.checks import at_least_one, refuse_unknown_keys
from spigot_allennlp.data.sentence_length import MAX_SENTENCE_LENGTH, length_problem
from spigot_allennlp.data.text_files import cut, malformed, parse_json, read_lines, shorten
from spigot_allennlp.data.tokenizers.offline_spacy import OfflineSpacyTokenizer

logger = logging.getLogger(__name__)

LABELS = ("entailment", "neutral", "contradiction")
_NO_CONSENSUS = "-"
_LABEL = "gold_label"
_SENTENCES = ("sentence1", "sentence2")
# What SNLI and MultiNLI have besides.
_IGNORED = (
    "annotator_labels",
    "captionID",
    "genre",
    "pairID",
    "promptID",
    *(f"{sentence}_{parse}" for sentence in _SENTENCES for parse in ("parse", "binary_parse")),
)


class SentencePair(NamedTuple):
    """
    One line of a file: two sentences, not tokenized, and the label: `-` where its annotators disagreed, `None` where
    the line has none.
    """

    premise: str
    hypothesis: str
    label: Optional[str]
    line: int


@DatasetReader.register("snli_pairs")
class SnliPairsDatasetReader(DatasetReader):
    """
    Reads the JSON lines of SNLI (Bowman et al. 2015) and MultiNLI: `{"gold_label": "neutral", "sentence1": "Dogs run.",
    "sentence2": "Cats run."}`; the other keys of these corpora are ignored. Pairs whose annotators found no consensus
    (`gold_label` `-`) are left out, and their number is logged. In a file to predict on, no line has a
    `gold_label`. The fields:

    - `premise`, `hypothesis`: `TextField`s of the words.
    - `label`: `LabelField`: `entailment`, `neutral` or `contradiction`. Only where it is known.
    - `metadata`: `"premise_words"` and `"hypothesis_words"`.

    # Parameters

    token_indexers : `Dict[str, TokenIndexer]`, optional (default = `{"tokens": SingleIdTokenIndexer()}`)
        Token indexers of the words.
    tokenizer : `Tokenizer`, optional (default = `offline_spacy`)
        Tokenizer of text, in files and in prediction.
    max_sentence_length : `int`, optional (default = `1000`)
        Largest number of words of a sentence, in files and in prediction; longer ones are refused. Memory grows with
        its square.

    # Errors

    `ConfigurationError` with file and line: a line that is not a JSON object, missing or unknown keys, sentences
    without words or with too many, other labels, labels in some lines only; and for a file with nothing but pairs
    without consensus.
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
        self._max_sentence_length = at_least_one("max_sentence_length", max_sentence_length)
        self._tokenizer = tokenizer

    def _read(self, file_path: str) -> Iterator[Instance]:
        for premise, hypothesis, label, line in self.shard_iterable(self._read_pairs(file_path)):
            try:
                instance = self.text_to_instance(premise, hypothesis, label)
            except ConfigurationError as error:
                raise malformed(file_path, line, error.message) from None
            yield instance

    def _read_pairs(self, file_path: str) -> Iterator[SentencePair]:
        found, without_consensus = 0, 0
        labelled: Optional[bool] = None
        for number, line in enumerate(read_lines(file_path), 1):
            if not line.strip():
                continue
            try:
                pair = _parse(line, number, labelled)
            except ValueError as error:
                raise malformed(file_path, number, str(error)) from None
            labelled = pair.label is not None
            if pair.label == _NO_CONSENSUS:
                without_consensus += 1
            else:
                found += 1
                yield pair
        if not found:
            raise ConfigurationError(
                f"{file_path}: the file holds no labelled pairs ({without_consensus} with label '-')"
            )
        logger.info("%s: %d pairs without consensus (gold_label '-') were left out", file_path, without_consensus)

    def tokenize(self, text: str) -> list[Token]:
        """The tokens of a text, in training and in prediction."""
        self._tokenizer = self._tokenizer or OfflineSpacyTokenizer()
        return self._tokenizer.tokenize(text)

    def text_to_instance(
        self,
        premise: Union[str, Sequence[Union[str, Token]]],
        hypothesis: Union[str, Sequence[Union[str, Token]]],
        label: Optional[str] = None,
    ) -> Instance:
        """
        # Parameters

        premise, hypothesis : `Union[str, Sequence[Union[str, Token]]]`
            Words or tokens, or text to tokenize.
        label : `str`, optional (default = `None`)
            Name of the gold label.
        """
        sentences = {"premise": self._tokens(premise), "hypothesis": self._tokens(hypothesis)}
        fields: dict[str, Field] = {}
        for name, tokens in sentences.items():
            if not tokens:
                raise ConfigurationError(f"the {name} has no words; a sentence needs at least one")
            problem = length_problem(len(tokens), self._max_sentence_length)
            if problem:
                raise ConfigurationError(f"{name}: {problem}; it begins with {shorten(' '.join(map(str, tokens[:5])))}")
            fields[name] = TextField(tokens)
        words = {f"{name}_words": [token.text for token in tokens] for name, tokens in sentences.items()}
        fields["metadata"] = MetadataField(words)
        if label is not None:
            fields["label"] = LabelField(label)
        return Instance(fields)

    def _tokens(self, sentence: Union[str, Sequence[Union[str, Token]]]) -> list[Token]:
        if isinstance(sentence, str):
            return self.tokenize(sentence)
        return [token if isinstance(token, Token) else Token(token) for token in sentence]

    def apply_token_indexers(self, instance: Instance) -> None:
        for name in ("premise", "hypothesis"):
            instance[name].token_indexers = self._token_indexers


def _parse(line: str, number: int, labelled: Optional[bool]) -> SentencePair:
    """One line, of a file whose lines before have labels, have none or (`None`) do not exist."""
    try:
        entry = parse_json(line)
    except ValueError as error:
        raise ValueError(f"the line is not JSON: {error}") from None
    if not isinstance(entry, dict):
        valid = ", ".join((_LABEL, *_SENTENCES))
        raise ValueError(f"{shorten(entry)} is not an object; valid: an object with the keys {valid}")
    missing = [key for key in (_LABEL, *_SENTENCES) if key not in entry and (key != _LABEL or labelled)]
    if missing:
        found = cut(", ".join(map(repr, entry)) or "none")
        raise ValueError(f"the key {', '.join(map(repr, missing))} is missing; found {found}")
    unknown = [key for key in entry if key not in (_LABEL, *_SENTENCES, *_IGNORED)]
    if unknown:
        valid = ", ".join((_LABEL, *_SENTENCES))
        raise ValueError(f"unknown key {shorten(unknown[0])}; valid: {valid}, and ignored: {', '.join(_IGNORED)}")
    if labelled is False and _LABEL in entry:
        raise ValueError(f"the key {_LABEL!r} is not in the lines before; either all lines must have it or none")
    sentences = [entry[key] for key in _SENTENCES]
    for key, sentence in zip(_SENTENCES, sentences):
        if not isinstance(sentence, str) or not sentence.strip():
            raise ValueError(f"'{key}' is {shorten(sentence)}; valid: a sentence of at least one word")
    label = entry.get(_LABEL)
    if _LABEL in entry and label not in (*LABELS, _NO_CONSENSUS):
        valid = ", ".join(map(repr, (*LABELS, _NO_CONSENSUS)))
        raise ValueError(f"gold_label is {shorten(label)}; valid: {valid}")
    return SentencePair(*sentences, label, number)
