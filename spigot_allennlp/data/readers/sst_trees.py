from collections.abc import Iterator, Sequence
from typing import Optional, Union

from allennlp.common.checks import ConfigurationError
from allennlp.data import DatasetReader, Field, Instance, Token, TokenIndexer, Tokenizer
from allennlp.data.fields import LabelField, MetadataField, TextField
from allennlp.data.token_indexers import SingleIdTokenIndexer

from spigot_allennlp.checks import at_least_one, refuse_unknown_keys
from spigot_allennlp.data.formats.sst import CLASSES, parse_sst, unescape
from spigot_allennlp.data.sentence import Sentence
from spigot_allennlp.data.sentence_length import MAX_SENTENCE_LENGTH, length_problem
from spigot_allennlp.data.text_files import read_lines, shorten
from spigot_allennlp.data.tokenizers.offline_spacy import OfflineSpacyTokenizer


class _UncountedTextField(TextField):
    """Adds nothing to a vocabulary."""

    def count_vocab_items(self, counter: dict[str, dict[str, int]]) -> None:
        pass


@DatasetReader.register("sst_trees")
class SstTreesDatasetReader(DatasetReader):
    """
    Reads sentences with sentiment labels: the trees of the Stanford Sentiment Treebank, `label<TAB>sentence`, or JSON
    lines. It tells them apart itself; `formats/sst.py` describes them, and what is refused. The fields:

    - `tokens`: `TextField` of the words.
    - `parser_tokens`: the same words, as the parser of `semantic_then_sentiment` reads them. Only with
      `parser_token_indexers`.
    - `label`: `LabelField` of the class, `"0"` being the most negative one. Only where it is known.
    - `metadata`: `"words"`.

    # Parameters

    token_indexers : `Dict[str, TokenIndexer]`, optional (default = `{"tokens": SingleIdTokenIndexer()}`)
        Token indexers of the words. Lemmas and parts of speech, which the files lack, are `"_"`, so that an indexer
        with that `feature_name` works.
    granularity : `Union[int, str]`, optional (default = `"5-class"`)
        `"5-class"`, `"3-class"` (negative, neutral, positive) or `"2-class"` (neutral ones are left out), or the number
        alone. The labels of trees are mapped to these classes; labels of other formats have to be these classes.
    use_subtrees : `bool`, optional (default = `False`)
        Whether every phrase of a tree is an instance, too; meant for training.
    tokenizer : `Tokenizer`, optional (default = `offline_spacy`)
        Tokenizer of text: the sentences of tabbed and JSON lines, and text to predict on. For text that is tokenized
        already, with blanks between words, `"just_spaces"`. Trees and lists of `tokens` stay as they are.
    max_sentence_length : `int`, optional (default = `1000`)
        Largest number of words of a sentence, in files and in prediction; longer ones are refused. Memory grows with
        its square.
    parser_token_indexers : `Dict[str, TokenIndexer]`, optional (default = `None`)
        Token indexers that the parser was trained with. The vocabulary does not grow by what they index: words that the
        parser has not seen are unknown to it.
    """

    def __init__(
        self,
        token_indexers: Optional[dict[str, TokenIndexer]] = None,
        granularity: Union[int, str] = "5-class",
        use_subtrees: bool = False,
        max_sentence_length: int = MAX_SENTENCE_LENGTH,
        parser_token_indexers: Optional[dict[str, TokenIndexer]] = None,
        tokenizer: Optional[Tokenizer] = None,
        **kwargs,
    ) -> None:
        refuse_unknown_keys(self, kwargs)
        super().__init__(manual_distributed_sharding=True, manual_multiprocess_sharding=True, **kwargs)
        num_classes = {str(n): n for n in CLASSES}.get(str(granularity).removesuffix("-class"))
        if num_classes is None:
            valid = ", ".join(f"'{n}-class'" for n in CLASSES)
            raise ConfigurationError(f"granularity is {granularity!r}; valid: {valid}, or the number alone")
        self._token_indexers = token_indexers or {"tokens": SingleIdTokenIndexer()}
        self._parser_token_indexers = parser_token_indexers
        self._num_classes = num_classes
        self._use_subtrees = use_subtrees
        self._tokenizer = tokenizer
        self._max_sentence_length = at_least_one("max_sentence_length", max_sentence_length)

    def _read(self, file_path: str) -> Iterator[Instance]:
        for words, label in self.shard_iterable(self._read_phrases(file_path)):
            yield self.text_to_instance(words, label)

    def tokenize(self, text: str) -> list[Token]:
        """The tokens of a text, in training and in prediction, with the Penn Treebank's escapes undone."""
        self._tokenizer = self._tokenizer or OfflineSpacyTokenizer()
        return self._tokenizer.tokenize(unescape(text))

    def _words(self, text: str) -> list[str]:
        return [token.text for token in self.tokenize(text)]

    def _read_phrases(self, file_path: str) -> Iterator[tuple[list[str], Optional[int]]]:
        found = False
        lines = read_lines(file_path)
        for tree in parse_sst(lines, file_path, self._num_classes, self._max_sentence_length, self._words):
            for start, end, label in tree.phrases if self._use_subtrees else tree.phrases[:1]:
                if label is not None or not tree.labelled:
                    found = True
                    yield tree.words[start:end], label
        if not found:
            raise ConfigurationError(f"{file_path}: all sentences are neutral, which is neither of two classes")

    def text_to_instance(
        self, words: Union[str, Sequence[Union[str, Token]]], label: Optional[Union[int, str]] = None
    ) -> Instance:
        """
        # Parameters

        words : `Union[str, Sequence[Union[str, Token]]]`
            Words or tokens, or text to tokenize.
        label : `Union[int, str]`, optional (default = `None`)
            Gold class.
        """
        if isinstance(words, str):
            words = self.tokenize(words)
        if not words:
            raise ConfigurationError("a sentence needs at least one word")
        problem = length_problem(len(words), self._max_sentence_length)
        if problem:
            raise ConfigurationError(f"{problem}; it begins with {shorten(' '.join(map(str, words[:5])))}")
        tokens = Sentence.from_tokens(words).to_tokens()
        fields: dict[str, Field] = {
            "tokens": TextField(tokens),
            "metadata": MetadataField({"words": [token.text for token in tokens]}),
        }
        if self._parser_token_indexers is not None:
            fields["parser_tokens"] = _UncountedTextField(tokens)
        if label is not None:
            fields["label"] = LabelField(str(label))
        return Instance(fields)

    def apply_token_indexers(self, instance: Instance) -> None:
        instance["tokens"].token_indexers = self._token_indexers
        if "parser_tokens" in instance.fields:
            instance["parser_tokens"].token_indexers = self._parser_token_indexers
