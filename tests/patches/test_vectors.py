"""A warning for files of word vectors in which frequent words share one."""

import logging
from pathlib import Path

import pytest
from allennlp.data import Vocabulary
from allennlp.modules.token_embedders import Embedding

FREQUENT = ["the", "good", "bad", "cat"]


def read(tmp_path: Path, vectors: dict) -> Embedding:
    path = tmp_path / "vectors.txt"
    path.write_text("".join(f"{word} {vector}\n" for word, vector in vectors.items()))
    vocab = Vocabulary(counter={"tokens": {word: 10 - i for i, word in enumerate(FREQUENT)}})
    return Embedding(embedding_dim=2, pretrained_file=str(path), vocab=vocab)


def test_shared_vectors(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING):
        read(tmp_path, {"the": "1 2", "good": "3 4", "bad": "3 4", "cat": "5 6", "rare": "1 2"})
    (record,) = [record for record in caplog.records if "share their vector" in record.getMessage()]
    assert "2 share their vector with another one: 'good', 'bad'." in record.getMessage()
    assert "vectors.txt" in record.getMessage()


def test_words_without_a_vector_share_none(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING):
        read(tmp_path, {"the": "1 2", "good": "3 4"})
    assert "share" not in caplog.text
