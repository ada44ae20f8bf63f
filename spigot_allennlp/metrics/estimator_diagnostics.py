from typing import Dict, Iterable

import torch

from spigot_allennlp.metrics.masked_mean import MaskedMean
from spigot_allennlp.metrics.reduced_once import ReducedOnce


class EstimatorDiagnostics(ReducedOnce):
    """
    The means over instances of what an estimator says of itself: how far it pulled back, how many arcs changed.

    Some of that is known only once the backward pass has run, and NaN until then. A call therefore remembers the
    tensors, and the next one, or `get_metric`, counts them.

    # Parameters

    names : `Iterable[str]`
        The estimator's `diagnostics`. All of them from the beginning, as workers exchange means in step.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._means = {name: MaskedMean() for name in names}
        self._pending: Dict[str, torch.Tensor] = {}

    def __call__(self, diagnostics: Dict[str, torch.Tensor]) -> None:
        """
        # Parameters

        diagnostics : `Dict[str, torch.Tensor]`
            `(batch,)` each; NaN does not count.
        """
        self._count()
        self._pending = diagnostics

    def get_metric(self, reset: bool = False) -> Dict[str, float]:
        """
        # Returns

        `Dict[str, float]`
            `_<name>` for each: the underscore keeps it off the progress bar.
        """
        self._count()
        return {f"_{name}": mean.get_metric(reset) for name, mean in self._means.items()}

    def reset(self) -> None:
        self._pending = {}
        for mean in self._means.values():
            mean.reset()

    def _count(self) -> None:
        for name, values in self._pending.items():
            self._means[name](values, ~values.isnan())
        self._pending = {}
