"""
Files of pre-trained word vectors.
"""

import logging
from collections import defaultdict
from typing import Any, Callable, Dict, List

import torch
from allennlp.data import Vocabulary
from allennlp.modules.token_embedders import embedding

from spigot_allennlp.patches.replacement import replace

logger = logging.getLogger(__name__)

# The vocabulary is in order of frequency.
_NUM_FREQUENT = 1000


def apply() -> None:
    """
    Apply every patch of this file. Calling it again does nothing.
    """
    replace(embedding, "_read_pretrained_embeddings_file", _warning_of_shared_vectors)


def _warning_of_shared_vectors(original: Callable) -> Callable:
    """
    Some files are pruned: many words share the vector of one of them (in spaCy's `en_core_web_md`, *good* has the
    vector of *bad*). A model trains with them, and is worse than it should be.
    """

    def _read_pretrained_embeddings_file(
        file_uri: str, embedding_dim: int, vocab: Vocabulary, namespace: str = "tokens", *args: Any, **kwargs: Any
    ) -> torch.FloatTensor:
        vectors = original(file_uri, embedding_dim, vocab, namespace, *args, **kwargs)
        groups = _words_that_share_a_vector(vectors, vocab, namespace)
        if groups:
            named = "; ".join(", ".join(map(repr, words[:4])) + (", ..." if words[4:] else "") for words in groups[:5])
            logger.warning(
                "%s: among the %d most frequent words, %d share their vector with another one: %s%s. The file is "
                "probably pruned; one with a vector for each word trains better models",
                file_uri,
                _NUM_FREQUENT,
                sum(map(len, groups)),
                named,
                "; ..." if groups[5:] else "",
            )
        return vectors

    return _read_pretrained_embeddings_file


def _words_that_share_a_vector(vectors: torch.Tensor, vocab: Vocabulary, namespace: str) -> List[List[str]]:
    words = vocab.get_index_to_token_vocabulary(namespace)
    # Padding and the unknown word have none.
    special = {vocab._padding_token, vocab._oov_token}
    by_vector: Dict[bytes, List[str]] = defaultdict(list)
    for index, vector in enumerate(vectors[:_NUM_FREQUENT].numpy()):
        if words[index] not in special:
            by_vector[vector.tobytes()].append(words[index])
    return [group for group in by_vector.values() if len(group) > 1]
