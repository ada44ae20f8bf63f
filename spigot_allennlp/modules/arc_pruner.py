import logging
import math
from typing import Dict, NamedTuple, Optional

import torch
from allennlp.common import FromParams
from allennlp.common.checks import ConfigurationError
from allennlp.data import TextFieldTensors
from allennlp.models import Model

from spigot_allennlp.checks import at_least_one
from spigot_allennlp.functional.trees import legal_arcs
from spigot_allennlp.metrics import MaskedMean
from spigot_allennlp.structures import LatentStructure

logger = logging.getLogger(__name__)

# The fraction of gold arcs that a pruner may remove without a warning.
_LOSS_TO_WARN_OF = 0.01


class PrunedArcs(NamedTuple):
    """
    # Parameters

    inference, loss : `torch.Tensor`
        Boolean `(batch, dependents, heads)`: the arcs that are not considered. Gold arcs always are in the loss, which
        would be infinite otherwise, and in training; what is predicted knows nothing of them.
    """

    inference: torch.Tensor
    loss: torch.Tensor


class ArcPruner(torch.nn.Module, FromParams):
    """
    Removes the arcs that a first-order model, trained before, finds improbable (Martins and Almeida 2014, section 3.2;
    Peng et al. 2018, section 4.1): arcs of marginal probability below a threshold, but no arc of its best structure, so
    that there always is one left. The model stays as it is.

    Gold arcs that are removed cannot be predicted. Their fraction is a metric, and a warning where it is above 1%.

    # Parameters

    model : `Model`
        Model of the same kind as the one whose arcs are pruned, `{"type": "from_archive", "archive_file": ...}`.
    threshold : `float`, optional (default = `1e-4`)
        Marginal probability below which an arc is removed.
    max_arguments : `int`, optional (default = `None`)
        Largest number of dependents of a head that are kept, the most probable ones. Peng et al. keep 20.

    # Errors

    `ConfigurationError` for a threshold that is not a probability below 1, a `max_arguments` below 1, and a model that
    does not score arcs.
    """

    def __init__(self, model: Model, threshold: float = 1e-4, max_arguments: int = None) -> None:
        super().__init__()
        self.max_arguments = None if max_arguments is None else at_least_one("max_arguments", max_arguments)
        if not 0 <= threshold < 1:
            raise ConfigurationError(f"threshold is {threshold!r}; valid: a probability below 1")
        self.model = model.requires_grad_(False).eval()
        self.threshold = threshold
        self._means = {name: MaskedMean() for name in ("recall", "density")}

    def train(self, mode: bool = True) -> "ArcPruner":
        super().train(mode)
        self.model.eval()
        return self

    def forward(
        self, tokens: TextFieldTensors, structure: LatentStructure, gold: Optional[torch.Tensor] = None
    ) -> PrunedArcs:
        """
        # Parameters

        tokens : `TextFieldTensors`
            Words of the batch.
        structure : `LatentStructure`
            Structure whose marginals and best structure the scores define.
        gold : `torch.Tensor`, optional
            Boolean `(batch, dependents, heads)`: gold arcs.
        """
        with torch.no_grad():
            scores, mask = self.model.score_arcs(tokens)
            marginals = structure.marginals(scores, mask)
            kept = marginals >= self.threshold
            if self.max_arguments is not None and self.max_arguments < marginals.size(1):
                kept &= marginals >= marginals.topk(self.max_arguments, dim=1).values[:, -1:]
            kept = kept | (structure.argmax(scores, mask) > 0)
        legal = legal_arcs(mask)
        self._means["density"](kept, legal)
        pruned = legal & ~kept
        if gold is None:
            return PrunedArcs(pruned, pruned)
        self._means["recall"](kept, gold)
        loss = pruned & ~gold
        return PrunedArcs(loss if self.training else pruned, loss)

    def get_metrics(self, reset: bool = False, prefix: str = "") -> Dict[str, float]:
        """
        # Returns

        `Dict[str, float]`
            `_<prefix>pruning_recall`: the fraction of gold arcs that are kept; `_<prefix>pruning_density`: the fraction
            of all possible arcs; as far as anything was counted.
        """
        means = {name: mean.get_metric(reset) for name, mean in self._means.items()}
        if reset and means["recall"] < 1 - _LOSS_TO_WARN_OF:
            logger.warning(
                "The %spruner removes %.1f%% of the gold arcs, which cannot be predicted then. A threshold below %g, a "
                "larger max_arguments, or a pruner that is trained longer keeps more of them",
                prefix.replace("_", " "),
                100 * (1 - means["recall"]),
                self.threshold,
            )
        return {f"_{prefix}pruning_{name}": mean for name, mean in means.items() if not math.isnan(mean)}
