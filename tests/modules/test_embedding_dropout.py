import pytest
import torch
from allennlp.common.checks import ConfigurationError
from allennlp.modules.token_embedders import PassThroughTokenEmbedder

from spigot_allennlp.modules import EmbeddingDropout

SIZES = {"characters": 2, "tokens": 3}


def _embedder(dropout: float) -> EmbeddingDropout:
    return EmbeddingDropout({name: PassThroughTokenEmbedder(size) for name, size in SIZES.items()}, dropout)


def _ones(words: int):
    return {name: {"tokens": torch.ones(1, words, size)} for name, size in SIZES.items()}


def test_whole_representations_are_dropped_and_the_rest_scaled():
    torch.manual_seed(0)
    embedded = _embedder(0.4)(_ones(5000))[0]
    # One value for each representation.
    assert set(map(tuple, embedded.tolist())) == {
        (0.0, 0.0, 0.0, 0.0, 0.0),
        (2.0, 2.0, 0.0, 0.0, 0.0),
        (0.0, 0.0, 2.0, 2.0, 2.0),
        (1.0, 1.0, 1.0, 1.0, 1.0),
    }
    for column in (0, 4):
        assert (embedded[:, column] == 0).double().mean() == pytest.approx(0.4, abs=0.03)


def test_prediction_drops_nothing():
    assert (_embedder(0.9).eval()(_ones(100)) == 1).all()
    assert (_embedder(0.0)(_ones(100)) == 1).all()


@pytest.mark.parametrize("dropout", [-0.1, 1.0])
def test_impossible_rates(dropout):
    with pytest.raises(ConfigurationError, match=f"dropout is {dropout}; valid: a number >= 0 and < 1"):
        _embedder(dropout)
