import torch

from spigot_allennlp.modules import AttentionPooling


def test_weighted_mean_of_real_tokens():
    torch.manual_seed(0)
    pooling = AttentionPooling(3)
    vectors = torch.randn(2, 4, 3)
    mask = torch.tensor([[True, True, True, True], [True, True, False, False]])
    pooled, attention = pooling(vectors, mask)
    for b, length in enumerate([4, 2]):
        weights = torch.stack([(vectors[b, i] @ pooling.query.weight[0]).exp() for i in range(length)])
        weights = weights / weights.sum()
        torch.testing.assert_close(attention[b, :length], weights)
        torch.testing.assert_close(pooled[b], weights @ vectors[b, :length])
    assert (attention[1, 2:] == 0).all()


def test_padding_counts_nothing_whatever_the_scores():
    pooling = AttentionPooling(1)
    with torch.no_grad():
        pooling.query.weight.fill_(1.0)
    # Where padding counted as a score of 0, the real tokens would vanish beside it.
    vectors = torch.tensor([[[-1000.0], [-1000.0], [0.0]]])
    pooled, attention = pooling(vectors, torch.tensor([[True, True, False]]))
    assert attention.tolist() == [[0.5, 0.5, 0.0]] and pooled.tolist() == [[-1000.0]]
