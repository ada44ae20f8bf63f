import pytest
import torch
from allennlp.common.checks import ConfigurationError

from spigot_allennlp.modules import GraphComposer


@pytest.fixture(params=[None, 3], ids=["unlabeled", "labeled"])
def given(request):
    torch.manual_seed(1)
    composer = GraphComposer(4, 5, request.param, label_dim=2).double()
    shape = (2, 6, 6) if request.param is None else (2, 6, 6, 1 + request.param)
    states = torch.randn(2, 6, 4, dtype=torch.float64)
    arcs = torch.rand(shape, dtype=torch.float64)
    # A word without heads, and one whose heads weigh less than 1 in all.
    arcs[0, 2], arcs[1, 3] = 0, arcs[1, 3] * 1e-2
    return composer, states, arcs


def by_hand(composer, states, arcs, divisor=None):
    vectors = []
    for z, h in zip(arcs, states):
        for i in range(len(h)):
            unlabeled = z[i] if z.dim() == 2 else z[i, :, 0]
            seen = sum(unlabeled[j] * composer.of_heads(h[j]) for j in range(len(h)))
            if z.dim() == 3:
                embeddings, project = composer.of_labels
                for j in range(len(h)):
                    seen = seen + sum(z[i, j, 1 + k] * project(embeddings.weight[k]) for k in range(z.size(-1) - 1))
            weight = unlabeled.sum().clamp(min=1) if divisor is None else divisor
            vectors.append(torch.relu(composer.own(h[i]) + seen / weight))
    return torch.stack(vectors).view(*states.shape[:2], -1)


def test_the_formula(given):
    torch.testing.assert_close(given[0](*given[1:]), by_hand(*given))


def test_the_divisor_is_held_constant(given):
    """With few heads it is 1 and the gradient is the formula's; with many, a fixed divisor's."""
    composer, states, arcs = given
    arcs = arcs[:1, :1].expand(1, 6, *arcs.shape[2:]).clone().requires_grad_()
    total = (arcs if arcs.dim() == 3 else arcs[..., 0]).sum(-1)[0, 0].item()
    assert total > 1
    weights = torch.randn(1, 6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    (found,) = torch.autograd.grad((composer(states[:1], arcs) * weights).sum(), arcs)
    (expected,) = torch.autograd.grad((by_hand(composer, states[:1], arcs, divisor=total) * weights).sum(), arcs)
    torch.testing.assert_close(found, expected)
    assert found.any()


def test_arcs_with_labels_and_without_are_not_mixed_up(given):
    composer, states, arcs = given
    other = arcs[..., 0] if arcs.dim() == 4 else arcs.unsqueeze(-1).expand(-1, -1, -1, 4)
    with pytest.raises(
        ConfigurationError, match="the composer takes arcs .*'labeled_arc_graph' for a composer with num"
    ):
        composer(states, other)
    if arcs.dim() == 4:
        with pytest.raises(ConfigurationError, match=r"heads, 1 \+ 3 labels\), .* \(2, 6, 6, 3\)"):
            composer(states, arcs[..., 1:])
