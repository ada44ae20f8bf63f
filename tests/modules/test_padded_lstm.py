"""`padded_lstm` against AllenNLP's `lstm`, which packs its sequences."""

import pytest
import torch
from allennlp.common import Params
from allennlp.modules import Seq2SeqEncoder

from spigot_allennlp.modules import PaddedLstm


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", [torch.float, torch.double])
@pytest.mark.parametrize("options", [{"bidirectional": True, "num_layers": 2}, {"num_layers": 2}, {"bias": False}])
def test_equals_the_packed_one(options, dtype, training):
    torch.manual_seed(0)
    packed, padded = (
        Seq2SeqEncoder.from_params(Params({"type": name, "input_size": 6, "hidden_size": 5, **options})).to(dtype)
        for name in ("lstm", "padded_lstm")
    )
    # The same parameters under the same names.
    padded.load_state_dict(packed.state_dict())
    mask = torch.arange(7) < torch.tensor([7, 3, 0, 1, 5]).unsqueeze(-1)
    inputs = torch.randn(5, 7, 6, dtype=dtype, requires_grad=True)
    results = []
    for encoder in (packed, padded):
        encoder.train(training)
        outputs = encoder(inputs, mask)
        results.append([outputs, *torch.autograd.grad(outputs.square().sum(), [inputs, *encoder.parameters()])])
    assert isinstance(padded, PaddedLstm)
    assert encoder.get_output_dim() == outputs.size(-1) == results[0][0].size(-1)
    torch.testing.assert_close(*results)


def test_what_stands_at_padding_changes_nothing():
    torch.manual_seed(0)
    encoder = Seq2SeqEncoder.from_params(
        Params({"type": "padded_lstm", "input_size": 3, "hidden_size": 4, "bidirectional": True})
    )
    mask = torch.tensor([[True, True, False], [True, True, True]])
    inputs = torch.randn(2, 3, 3)
    outputs = encoder(inputs, mask)
    assert (outputs[0, 2] == 0).all()
    inputs[0, 2] = torch.nan
    assert torch.equal(encoder(inputs, mask), outputs)


def test_dropout_between_layers():
    torch.manual_seed(0)
    options = {"type": "padded_lstm", "input_size": 3, "hidden_size": 40, "num_layers": 2, "dropout": 0.5}
    encoder = Seq2SeqEncoder.from_params(Params(options))
    inputs, mask = torch.randn(2, 4, 3), torch.ones(2, 4, dtype=torch.bool)
    assert not torch.equal(encoder(inputs, mask), encoder(inputs, mask))
    encoder.eval()
    assert torch.equal(encoder(inputs, mask), encoder(inputs, mask))
