import torch

from spigot_allennlp.checks import nonnegative


class Costs:
    """
    The asymmetric Hamming distance of a structured hinge loss, on any parts (Martins and Almeida 2014):

        cost(z, gold) = false_positive sum_i z_i (1 - gold_i) + false_negative sum_i (1 - z_i) gold_i

    # Parameters

    false_positive, false_negative : `float`
        Costs of a part that is not gold, and of a gold part that is missing.

    # Errors

    `ConfigurationError` for a cost that is not a number >= 0.
    """

    def __init__(self, false_positive: float, false_negative: float) -> None:
        self.false_positive = nonnegative("false_positive_cost", false_positive)
        self.false_negative = nonnegative("false_negative_cost", false_negative)

    def augment(self, scores: torch.Tensor, gold: torch.Tensor) -> torch.Tensor:
        """
        `scores`, and what each part of `z` adds to `cost(z, gold)`: decoding with them is cost-augmented.
        """
        return torch.where(gold, scores - self.false_negative, scores + self.false_positive)

    def between(self, parts: torch.Tensor, gold: torch.Tensor) -> torch.Tensor:
        """
        `cost(parts, gold)`, `(batch,)`, of boolean tensors `(batch, ...)`; in double precision.
        """
        too_many, too_few = ((x & ~y).flatten(1).sum(-1).double() for x, y in ((parts, gold), (gold, parts)))
        return self.false_positive * too_many + self.false_negative * too_few
