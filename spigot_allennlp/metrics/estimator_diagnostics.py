import logging
from typing import Dict, Iterable

import torch

from spigot_allennlp.metrics.masked_mean import MaskedMean
from spigot_allennlp.metrics.reduced_once import ReducedOnce

logger = logging.getLogger(__name__)

# By what factor scores may grow in an epoch before a warning. Below 1 they hardly prefer any structure.
_RUNAWAY, _SMALL = 10.0, 1.0


class EstimatorDiagnostics(ReducedOnce):
    """
    The means over instances of what an estimator says of itself: how far it pulled back, how many arcs changed.

    Warns where scores run away: where the root mean square of the scores, or of their means (`score_rms` and
    `mean_score_rms` of `Estimator`), is at least ten times as large in an epoch's last batch as in its first.

    Some of that is known only once the backward pass has run, and NaN until then. A call therefore remembers the
    tensors, and the next one, or `get_metric`, counts them.

    # Parameters

    names : `Iterable[str]`
        Names of the estimator's `diagnostics`, all from the beginning, as workers exchange means in step.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._means = {name: MaskedMean() for name in names}
        self._pending: Dict[str, torch.Tensor] = {}
        # From an epoch's first batch, and from the latest: kept as tensors, so that no batch waits for the GPU.
        self._first: Dict[str, torch.Tensor] = {}
        self._last: Dict[str, torch.Tensor] = {}

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
        if reset:
            self._warn_of_runaway_scores()
        metrics = {f"_{name}": mean.get_metric(reset) for name, mean in self._means.items()}
        if reset:
            self.reset()
        return metrics

    def reset(self) -> None:
        self._pending, self._first, self._last = {}, {}, {}
        for mean in self._means.values():
            mean.reset()

    def _count(self) -> None:
        for name, values in self._pending.items():
            self._means[name](values, ~values.isnan())
            if name.endswith("score_rms"):
                self._last[name] = values.detach().nanmean()
                self._first.setdefault(name, self._last[name])
        self._pending = {}

    def _warn_of_runaway_scores(self) -> None:
        for name, last in self._last.items():
            first = float(self._first[name])
            if float(last) >= _RUNAWAY * max(first, _SMALL):
                logger.warning(
                    "The latent structure's scores run away: their _%s grew from %.3g to %.3g in an epoch. What keeps "
                    "them in place: a bounded arc_scorer ({type: 'mlp', num_layers: 2}), center_gradient: true for "
                    "'ste', a smaller step_size or max_gradient_norm, a grad_norm of its own for the parser "
                    "(trainer.grad_norm with groups), or a larger syntactic_loss_weight",
                    name,
                    first,
                    float(last),
                )
