import pytest
import torch
from allennlp.common import Params
from allennlp.common.checks import ConfigurationError

from spigot_allennlp.modules import ArcScorer, MlpArcScorer


@pytest.mark.parametrize("num_layers", [1, 2, 3])
def test_a_perceptron_on_concatenated_states(num_layers):
    torch.manual_seed(0)
    params = Params({"type": "mlp", "hidden_dim": 3, "num_layers": num_layers})
    scorer = ArcScorer.from_params(params, input_dim=4).double()
    assert isinstance(scorer, MlpArcScorer)
    states = torch.randn(2, 5, 4, dtype=torch.double, requires_grad=True)
    first = torch.cat([scorer.dependent.weight, scorer.head.weight], dim=1)
    expected = torch.empty(2, 5, 5, dtype=torch.double)
    for b in range(2):
        for d in range(5):
            for h in range(5):
                hidden = torch.tanh(first @ torch.cat([states[b, d], states[b, h]]) + scorer.dependent.bias)
                for layer in scorer.layers:
                    hidden = torch.tanh(layer(hidden))
                expected[b, d, h] = scorer.score(hidden)
    scores = scorer(states)
    torch.testing.assert_close(scores, expected)
    # The activation in place does not disturb the gradient.
    weights = torch.randn_like(scores)
    parameters = [states, *scorer.parameters()]
    for found, wanted in zip(
        torch.autograd.grad((scores * weights).sum(), parameters),
        torch.autograd.grad((expected * weights).sum(), parameters),
    ):
        torch.testing.assert_close(found, wanted)


def test_refusals():
    with pytest.raises(ConfigurationError, match="num_layers is 0; valid: an integer >= 1"):
        MlpArcScorer(input_dim=4, num_layers=0)
