import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from typing import Optional, Union

import torch
from allennlp.common.checks import ConfigurationError
from allennlp.data import DatasetReader, Field, Instance, Token, TokenIndexer
from allennlp.data.fields import AdjacencyField, MetadataField, SequenceLabelField, TextField
from allennlp.data.token_indexers import SingleIdTokenIndexer

from spigot_allennlp.checks import at_least_one, refuse_unknown_keys
from spigot_allennlp.data.sentence import ABSENT, Sentence
from spigot_allennlp.data.sentence_length import MAX_SENTENCE_LENGTH, length_problem
from spigot_allennlp.data.text_files import malformed, shorten
from spigot_allennlp.data.tokenizers.offline_spacy import OfflineSpacyTokenizer

_CHUNK = 256


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """
    Python's cyclic garbage collector looks through all living objects each time they have grown by a quarter.
    When instances are kept, that is more than half of the time that reading takes, and they hold no cycles
    for it to find.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


# These namespaces have entries for padding and unknown labels, on purpose: a label that the training data
# lacks then counts as an error instead of ending the run. AllenNLP would recommend against it once for each.
for _field in (AdjacencyField, SequenceLabelField):
    _field._already_warned_namespaces.update({"arc_relations", "head_relations"})


class _ArcField(AdjacencyField):
    """AllenNLP's writes one label after the other into the tensor, which takes seconds where there are many."""

    def as_tensor(self, padding_lengths: dict[str, int]) -> torch.Tensor:
        size = padding_lengths["num_tokens"]
        tensor = torch.full((size, size), float(self._padding_value))
        if self.indices:
            dependents, heads = torch.tensor(self.indices).t()
            tensor[dependents, heads] = torch.tensor(self._indexed_labels, dtype=tensor.dtype)
        return tensor


class DependencyGraphReader(DatasetReader):
    """
    What the readers of sentences with trees and graphs share: turning sentences into instances. The fields:

    - `tokens`: `TextField` of the words, without ROOT; each `Token` carries `lemma_`, `pos_` and `tag_`
      (`"_"` where unknown, so that an indexer with that `feature_name` works on plain text too).
    - `head_indices`: `SequenceLabelField` of integers, the head of each word, 0 for ROOT. Only where there
      are trees.
    - `head_tags`: `SequenceLabelField` of relations, in the namespace `head_relations`. Only where the trees
      are labeled.
    - `arc_tags`: `AdjacencyField` of labels at `(dependent, head)`, both counted from 0 without ROOT, in the
      namespace `arc_relations`; -1 elsewhere. Only where there are graphs.
    - `tops`: `SequenceLabelField` of 0 and 1. Only where there are graphs.
    - `metadata`: `"words"`, `"sentence_id"`, and the sentence itself as `"graph"`.

    # Parameters

    token_indexers : `Dict[str, TokenIndexer]`, optional (default = `{"tokens": SingleIdTokenIndexer()}`)
        Token indexers of the words.
    trees, graphs : `bool`, optional (default = `True`)
        Whether instances have the trees and the graphs that a file has. A layer that is switched off is neither
        parsed nor checked.
    max_sentence_length : `int`, optional (default = `1000`)
        Largest number of words of a sentence, in files and in prediction. A longer one is refused
        (`ConfigurationError`, with file and line if it is in a file) before anything is allocated for its arcs.
    tagger : `str`, optional (default = `None`)
        Name or path of an installed, trained spaCy pipeline. Its lemmas and parts of speech, predicted offline for
        every sentence, in training and in prediction alike, replace what a file has.

    # Errors

    `ConfigurationError` for a pipeline that is not installed, or predicts neither lemmas nor parts of speech.
    """

    def __init__(
        self,
        token_indexers: Optional[dict[str, TokenIndexer]] = None,
        trees: bool = True,
        graphs: bool = True,
        max_sentence_length: int = MAX_SENTENCE_LENGTH,
        tagger: Optional[str] = None,
        **kwargs,
    ) -> None:
        refuse_unknown_keys(self, kwargs)
        super().__init__(manual_distributed_sharding=True, manual_multiprocess_sharding=True, **kwargs)
        self._token_indexers = token_indexers or {"tokens": SingleIdTokenIndexer()}
        self._max_sentence_length = at_least_one("max_sentence_length", max_sentence_length)
        self._trees = trees
        self._graphs = graphs
        self._tagger = None if tagger is None else _tagger(tagger)

    def read_sentences(self, file_path: str) -> Iterator[Sentence]:
        """The sentences of a file, one by one."""
        raise NotImplementedError

    def _read(self, file_path: str) -> Iterator[Instance]:
        sentences = self.shard_iterable(self._checked(self.read_sentences(file_path), file_path))
        while True:
            with _no_garbage_collection():
                instances = [self.text_to_instance(sentence) for sentence in islice(sentences, _CHUNK)]
            if not instances:
                return
            yield from instances

    def _checked(self, sentences: Iterator[Sentence], file_path: str) -> Iterator[Sentence]:
        for sentence in sentences:
            problem = length_problem(len(sentence), self._max_sentence_length)
            if problem:
                raise malformed(file_path, sentence.line, problem)
            yield sentence

    def text_to_instance(self, words: Union[Sentence, Sequence[Union[str, Token]]]) -> Instance:
        """
        # Parameters

        words : `Union[Sentence, Sequence[Union[str, Token]]]`
            A sentence with whatever annotation it has, or just its words or tokens.
        """
        sentence = words if isinstance(words, Sentence) else Sentence.from_tokens(words)
        if not sentence.words:
            raise ConfigurationError("a sentence needs at least one word")
        problem = length_problem(len(sentence), self._max_sentence_length)
        if problem:
            raise ConfigurationError(f"{problem}; it begins with {shorten(' '.join(sentence.words[:5]))}")
        tagged, sentence = self._tagged(sentence)
        tokens = TextField(tagged)
        fields: dict[str, Field] = {
            "tokens": tokens,
            "metadata": MetadataField(
                {"words": sentence.words, "sentence_id": sentence.sentence_id, "graph": sentence}
            ),
        }
        if self._trees and sentence.heads is not None:
            fields["head_indices"] = SequenceLabelField(sentence.heads, tokens, label_namespace="head_index_tags")
        if self._trees and sentence.deprels is not None:
            fields["head_tags"] = SequenceLabelField(sentence.deprels, tokens, label_namespace="head_relations")
        if self._graphs and sentence.arcs is not None:
            fields["arc_tags"] = _ArcField(
                indices=[(dependent - 1, head - 1) for dependent, head in sentence.arcs],
                sequence_field=tokens,
                labels=list(sentence.arcs.values()),
                label_namespace="arc_relations",
                padding_value=-1,
            )
            tops: list[int] = [int(word in sentence.tops) for word in range(1, len(sentence) + 1)]
            fields["tops"] = SequenceLabelField(tops, tokens, label_namespace="tops_tags")
        return Instance(fields)

    def _tagged(self, sentence: Sentence) -> tuple[list[Token], Sentence]:
        """The tokens, and the sentence, in which what the tagger says takes the place of what a file does not."""
        if self._tagger is None:
            return sentence.to_tokens(), sentence
        tagged = Sentence.from_tokens(self._tagger.tag(sentence.words))
        columns = {
            name: [new if old == ABSENT else old for old, new in zip(getattr(sentence, name), getattr(tagged, name))]
            for name in ("lemmas", "pos_tags", "tags")
        }
        return tagged.to_tokens(), replace(sentence, **columns)

    def apply_token_indexers(self, instance: Instance) -> None:
        instance["tokens"].token_indexers = self._token_indexers


def _tagger(pipeline: str) -> OfflineSpacyTokenizer:
    tagger = OfflineSpacyTokenizer(pipeline=pipeline)
    (token,) = tagger.tag(["word"])
    if not (token.lemma_ or token.pos_ or token.tag_):
        raise ConfigurationError(
            f"tagger is {pipeline!r}, which predicts neither lemmas nor parts of speech; valid: one that does"
        )
    return tagger
