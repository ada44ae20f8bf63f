from typing import Dict

import torch
from allennlp.common.checks import ConfigurationError
from allennlp.data import TextFieldTensors
from allennlp.modules import TextFieldEmbedder, TokenEmbedder
from allennlp.modules.text_field_embedders import BasicTextFieldEmbedder


@TextFieldEmbedder.register("basic_with_embedding_dropout")
class EmbeddingDropout(BasicTextFieldEmbedder):
    """
    AllenNLP's `basic` embedder that in training drops whole embeddings: of each word, each of its representations
    (word vector, characters, tags, ...) becomes 0 with probability `dropout`, independently, and what is left is
    scaled up by their number over the number left (Dozat and Manning 2017, section 3.1.3). A model learns to do
    without any of them.

    # Parameters

    token_embedders : `Dict[str, TokenEmbedder]`
        Embedders of the representations, by indexer.
    dropout : `float`, optional (default = `0.33`)
        Probability of each representation of each word.

    # Errors

    `ConfigurationError` for `dropout` outside of 0 to 1 (1 excluded).
    """

    def __init__(self, token_embedders: Dict[str, TokenEmbedder], dropout: float = 0.33) -> None:
        super().__init__(token_embedders)
        if not 0 <= dropout < 1:
            raise ConfigurationError(f"dropout is {dropout}; valid: a number >= 0 and < 1")
        self.dropout = dropout
        sizes = [token_embedders[key].get_output_dim() for key in self._ordered_embedder_keys]
        self._sizes = torch.tensor(sizes)

    def forward(self, text_field_input: TextFieldTensors, num_wrapping_dims: int = 0, **kwargs) -> torch.Tensor:
        embedded = super().forward(text_field_input, num_wrapping_dims, **kwargs)
        if not self.training or not self.dropout:
            return embedded
        # shape: (batch, words, representations)
        kept = torch.rand(*embedded.shape[:-1], len(self._sizes), device=embedded.device) >= self.dropout
        scale = kept * (len(self._sizes) / kept.sum(-1, keepdim=True).clamp(min=1))
        return embedded * scale.to(embedded.dtype).repeat_interleave(self._sizes.to(embedded.device), dim=-1)
