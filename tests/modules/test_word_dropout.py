import pytest
import torch
from allennlp.common import Params
from allennlp.common.checks import ConfigurationError
from allennlp.data import Instance, Token, Vocabulary
from allennlp.data.fields import TextField
from allennlp.data.token_indexers import SingleIdTokenIndexer
from allennlp.modules import TokenEmbedder

from spigot_allennlp.modules import WordDropoutEmbedding
from spigot_allennlp.modules.word_dropout import no_word_dropout

COUNTS = {"the": 8, "dog": 3, "barks": 1}


@pytest.fixture
def vocab() -> Vocabulary:
    words = [Token(word) for word, count in COUNTS.items() for _ in range(count)]
    return Vocabulary.from_instances([Instance({"tokens": TextField(words, {"tokens": SingleIdTokenIndexer()})})])


def embedding(vocab: Vocabulary, **keys) -> WordDropoutEmbedding:
    params = Params({"type": "embedding_with_word_dropout", "embedding_dim": 2, **keys})
    embedder = TokenEmbedder.from_params(params, vocab=vocab)
    # Each word's vector tells its index.
    embedder.weight.data = torch.arange(float(embedder.num_embeddings)).unsqueeze(-1).expand(-1, 2).contiguous()
    return embedder


@pytest.mark.parametrize("alpha", [0.25, 2.0])
def test_words_are_dropped_by_their_frequency(vocab, alpha):
    torch.manual_seed(0)
    embedder = embedding(vocab, alpha=alpha)
    words = [vocab.get_token_index(word) for word in COUNTS]
    tokens = torch.tensor([*words, 0]).expand(20_000, -1)
    seen = embedder(tokens)[..., 0]
    unknown = vocab.get_token_index(vocab._oov_token)
    assert ((seen == tokens) | (seen == unknown)).all()
    fractions = (seen == unknown).float().mean(0).tolist()
    assert fractions == pytest.approx([alpha / (count + alpha) for count in COUNTS.values()] + [0.0], abs=0.02)
    assert (seen[:, -1] == 0).all()


def test_only_in_training(vocab):
    embedder = embedding(vocab, alpha=1e6)
    tokens = torch.tensor([[2, 3, 4]])
    assert embedder(tokens)[0, :, 0].tolist() == [1.0, 1.0, 1.0]
    with no_word_dropout(torch.nn.Sequential(embedder)):
        assert embedder(tokens)[0, :, 0].tolist() == [2.0, 3.0, 4.0]
    assert embedder(tokens)[0, :, 0].tolist() == [1.0, 1.0, 1.0]
    embedder.eval()
    with no_word_dropout(embedder):
        pass
    assert not embedder.training and embedder(tokens)[0, :, 0].tolist() == [2.0, 3.0, 4.0]


def test_counts_are_saved(vocab, tmp_path):
    vocab.save_to_files(str(tmp_path))
    from_files = Vocabulary.from_files(str(tmp_path))
    embedder = embedding(from_files)
    with pytest.raises(
        ConfigurationError, match="needs the counts of 'tokens', which this vocabulary, read from files"
    ):
        embedder(torch.tensor([[2]]))
    assert embedder.eval()(torch.tensor([[2]])).shape == (1, 1, 2)
    embedder.load_state_dict(embedding(vocab).state_dict())
    words = [from_files.get_token_index(word) for word in COUNTS]
    assert embedder.counts[words].tolist() == list(COUNTS.values())
    embedder.train()(torch.tensor([[2]]))


def test_an_extended_vocabulary(vocab):
    embedder = embedding(vocab)
    vocab.add_token_to_namespace("new")
    embedder.extend_vocab(vocab)
    assert len(embedder.counts) == len(embedder.weight) == vocab.get_vocab_size()
    assert embedder(torch.tensor([[vocab.get_token_index("new")]])).shape == (1, 1, 2)
    embedder.extend_vocab(vocab)
    assert len(embedder.counts) == vocab.get_vocab_size()


@pytest.mark.parametrize(
    "keys, message",
    [
        ({"alpha": 0.0}, "alpha is 0.0; valid: a number > 0"),
        ({"vocab_namespace": "word_labels"}, "the namespace 'word_labels' has no unknown word"),
        ({"rate": 0.1}, "WordDropoutEmbedding has no key 'rate'; valid: embedding_dim, vocab, alpha"),
    ],
)
def test_refusals(vocab, keys, message):
    with pytest.raises(ConfigurationError) as error:
        embedding(vocab, **keys)
    assert message in str(error.value)
