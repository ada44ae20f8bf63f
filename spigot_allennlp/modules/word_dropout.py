from contextlib import contextmanager
from typing import Any, Iterator

import torch
from allennlp.common.checks import ConfigurationError
from allennlp.data import Vocabulary
from allennlp.modules import TokenEmbedder
from allennlp.modules.token_embedders import Embedding

from spigot_allennlp.checks import positive, refuse_unknown_keys


@TokenEmbedder.register("embedding_with_word_dropout")
class WordDropoutEmbedding(Embedding):
    """
    AllenNLP's `embedding`, that in training replaces each word by the unknown one with probability
    `alpha / (count + alpha)` (Kiperwasser and Goldberg 2016, section 4; Peng et al. 2018, section 4.1): the unknown
    word is learned as one more rare word.

    Words are counted in the instances that the vocabulary was built from; `"datasets_for_vocab_creation": ["train"]`
    in a config makes that the training data alone. They are part of the state dict, as the files of a vocabulary keep
    none: neither do the workers of a distributed run, which read it from files, have any. Words by which the vocabulary
    of an archive is extended have count 0. `syntactic_then_semantic` drops no words of a `syntactic_parser` of its own
    where that is an intermediate layer.

    # Parameters

    embedding_dim : `int`
        Size of the vectors.
    vocab : `Vocabulary`
        Vocabulary of the model.
    alpha : `float`, optional (default = `0.25`)
        Constant of the drop rate: the larger, the more words are dropped.
    vocab_namespace : `str`, optional (default = `"tokens"`)
        Namespace of the words.

    The other parameters are `Embedding`'s, except `num_embeddings`.

    # Errors

    `ConfigurationError` for `alpha` <= 0, for a namespace without an unknown word, and for a training step without
    counts.
    """

    def __init__(
        self, embedding_dim: int, vocab: Vocabulary, alpha: float = 0.25, vocab_namespace: str = "tokens", **kwargs: Any
    ) -> None:
        refuse_unknown_keys(self, kwargs)
        super().__init__(embedding_dim, vocab=vocab, vocab_namespace=vocab_namespace, **kwargs)
        self.alpha = positive("alpha", alpha)
        indices = vocab.get_token_to_index_vocabulary(vocab_namespace)
        if vocab._oov_token not in indices:
            raise ConfigurationError(
                f"the namespace '{vocab_namespace}' has no unknown word to replace others by; valid: one that is padded"
            )
        self.unknown = indices[vocab._oov_token]
        self.register_buffer("counts", _counts(vocab, vocab_namespace))
        self.counts: torch.Tensor

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        if self.training:
            if not self.counts.any():
                raise ConfigurationError(
                    f"word dropout needs the counts of '{self._vocab_namespace}', which this vocabulary, read from "
                    "files, does not have. Valid: one that is built from instances, or the archive of a model that was"
                )
            probabilities = self.alpha / (self.counts + self.alpha)
            # 0 is padding.
            dropped = (torch.rand(tokens.shape, device=tokens.device) < probabilities[tokens]) & (tokens > 0)
            tokens = tokens.masked_fill(dropped, self.unknown)
        return super().forward(tokens)

    def extend_vocab(self, extended_vocab: Vocabulary, *args: Any, **kwargs: Any) -> None:
        super().extend_vocab(extended_vocab, *args, **kwargs)
        counts = _counts(extended_vocab, self._vocab_namespace).to(self.counts)
        self.counts = torch.cat([self.counts, counts[len(self.counts) :]])


def _counts(vocab: Vocabulary, namespace: str) -> torch.Tensor:
    counter = (vocab._retained_counter or {}).get(namespace, {})
    words = vocab.get_index_to_token_vocabulary(namespace)
    return torch.tensor([float(counter.get(words[index], 0)) for index in range(len(words))])


@contextmanager
def no_word_dropout(module: torch.nn.Module) -> Iterator[None]:
    """
    Within it, no part of `module` drops words.
    """
    embeddings = [part for part in module.modules() if isinstance(part, WordDropoutEmbedding) and part.training]
    for embedding in embeddings:
        embedding.eval()
    try:
        yield
    finally:
        for embedding in embeddings:
            embedding.train()
