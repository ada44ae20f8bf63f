"""`character_encoding_of_distinct_words` against AllenNLP's `character_encoding`, which encodes every position."""

import pytest
import torch
from allennlp.common import Params
from allennlp.data import Vocabulary
from allennlp.modules import TokenEmbedder

from spigot_allennlp.modules import distinct_words
from spigot_allennlp.modules.distinct_words import distinct_rows


def _embedders(**options):
    vocab = Vocabulary(non_padded_namespaces=[])
    for character in "abcdef":
        vocab.add_token_to_namespace(character, "token_characters")
    embedders = [
        TokenEmbedder.from_params(
            Params(
                {
                    "type": name,
                    "embedding": {"embedding_dim": 3, "vocab_namespace": "token_characters"},
                    "encoder": {"type": "cnn", "embedding_dim": 3, "num_filters": 4, "ngram_filter_sizes": [2, 3]},
                    **options,
                }
            ),
            vocab=vocab,
        )
        for name in ("character_encoding", "character_encoding_of_distinct_words")
    ]
    # The same parameters under the same names.
    embedders[1].load_state_dict(embedders[0].state_dict())
    return embedders


def _words(seed: int, *shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    characters = torch.randint(2, 8, (*shape, 6), generator=generator)
    lengths = torch.randint(0, 7, (*shape, 1), generator=generator)
    return characters * (torch.arange(6) < lengths)


def test_equals_the_encoder_of_all_positions():
    words = torch.cat([_words(0, 3, 5)] * 2, dim=1)
    results = []
    for embedder in _embedders():
        embedded = embedder(words)
        results.append([embedded, *torch.autograd.grad(embedded.square().sum(), list(embedder.parameters()))])
    assert results[0][0].shape == (3, 10, 8)
    torch.testing.assert_close(*results)


def test_encodes_each_word_once():
    _, embedder = _embedders()
    seen = []
    embedder._encoder.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    embedder._encoder._module.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    words = _words(0, 4, 7)
    embedder(torch.cat([words, words, torch.zeros_like(words)]))
    assert seen == [len({tuple(word) for word in words.flatten(0, 1).tolist()} | {(0,) * 6})]


def test_dropout_differs_between_positions():
    _, embedder = _embedders(dropout=0.5)
    words = _words(0, 1, 1).clamp(min=2).expand(1, 50, 6)
    torch.manual_seed(0)
    assert len(embedder(words)[0].unique(dim=0)) > 1
    assert len(embedder.eval()(words)[0].unique(dim=0)) == 1


@pytest.mark.parametrize("colliding", [False, True])
def test_distinct_rows(monkeypatch, colliding):
    if colliding:
        # All keys are equal.
        monkeypatch.setattr(distinct_words, "_multipliers", lambda size, device: torch.zeros(size, dtype=torch.long))
    rows = _words(1, 200)
    distinct, index = distinct_rows(rows)
    assert torch.equal(distinct[index], rows)
    assert sorted(distinct.tolist()) == sorted(map(list, {tuple(row) for row in rows.tolist()}))
