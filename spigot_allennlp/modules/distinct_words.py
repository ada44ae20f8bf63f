import torch
from allennlp.modules import TokenEmbedder
from allennlp.modules.token_embedders import TokenCharactersEncoder


@TokenEmbedder.register("character_encoding_of_distinct_words")
class DistinctWordsCharacterEncoder(TokenCharactersEncoder):
    """
    AllenNLP's `character_encoding`, run once for each distinct word of a batch instead of at every position: equal to
    it up to rounding, with the same parameters under the same names. A third of the positions of a batch are
    padding, and half of the words occur more than once.

    Dropout is drawn for every position, as there.

    # Parameters

    embedding : `Embedding`
        Embedding of the characters.
    encoder : `Seq2VecEncoder`
        Encoder from a word's characters to a vector.
    dropout : `float`, optional (default = `0.0`)
        Dropout rate of the encoded words.
    """

    def forward(self, token_characters: torch.Tensor) -> torch.Tensor:
        """
        # Parameters

        token_characters : `torch.Tensor`
            `(batch, words, characters)`, 0 at padding.

        # Returns

        `torch.Tensor`
            `(batch, words, dim)`.
        """
        distinct, position = distinct_rows(token_characters.flatten(0, -2))
        embedded = self._embedding._module(distinct)
        # shape: (distinct words, dim)
        encoded = self._encoder._module(embedded, (distinct != 0).long())
        return self._dropout(encoded[position].view(*token_characters.shape[:-1], -1))


def distinct_rows(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """
    # Parameters

    rows : `torch.Tensor`
        Integers, `(rows, columns)`.

    # Returns

    `tuple[torch.Tensor, torch.Tensor]`
        The distinct rows `(distinct, columns)`, and for each row its index among them `(rows,)`.
    """
    # Sorting one number for each row is many times faster than sorting rows, as torch.unique(dim=0) does.
    keys, index = torch.unique((rows * _multipliers(rows.size(-1), rows.device)).sum(-1), return_inverse=True)
    distinct = rows.new_empty(len(keys), rows.size(-1)).index_copy_(0, index, rows)
    if not torch.equal(distinct[index], rows):
        # Two rows with the same key.
        distinct, index = torch.unique(rows, dim=0, return_inverse=True)
    return distinct, index


def _multipliers(size: int, device: torch.device) -> torch.Tensor:
    """Odd numbers, always the same; sums of products with them wrap around."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(-(2**62), 2**62, (size,), generator=generator).to(device) * 2 + 1
