from typing import Optional, Tuple

import torch
from allennlp.data import TextFieldTensors
from allennlp.modules import InputVariationalDropout, Seq2SeqEncoder, TextFieldEmbedder
from allennlp.nn.util import get_text_field_mask

from spigot_allennlp.modules.root import RootSentinel, mask_with_root


class TextEncoder(torch.nn.Module):
    """
    From text to a state for ROOT and for each word: embedder, dropout, encoder, dropout.

    # Parameters

    text_field_embedder : `TextFieldEmbedder`
        Embedder of the words.
    encoder : `Seq2SeqEncoder`, optional (default = `None`)
        Encoder of the embeddings; `None` uses the embeddings themselves (a transformer's, say).
    dropout : `float`, optional (default = `0.0`)
        Dropout before and after the encoder; the same units for all words of a sentence.
    """

    def __init__(
        self,
        text_field_embedder: TextFieldEmbedder,
        encoder: Optional[Seq2SeqEncoder] = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.text_field_embedder = text_field_embedder
        self.encoder = encoder
        self.dropout = InputVariationalDropout(dropout)
        self.root = RootSentinel(self.get_output_dim())

    def get_output_dim(self) -> int:
        module = self.text_field_embedder if self.encoder is None else self.encoder
        return module.get_output_dim()

    def forward(self, tokens: TextFieldTensors) -> Tuple[torch.Tensor, torch.Tensor]:
        """
        # Returns

        `Tuple[torch.Tensor, torch.Tensor]`
            States `(batch, 1 + words, dim)`, ROOT first, and the mask `(batch, 1 + words)`.
        """
        mask = get_text_field_mask(tokens)
        states = self.dropout(self.text_field_embedder(tokens))
        if self.encoder is not None:
            states = self.dropout(self.encoder(states, mask))
        return self.root(states), mask_with_root(mask)
