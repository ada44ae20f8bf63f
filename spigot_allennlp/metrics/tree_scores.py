import math
from typing import Dict, Optional

import torch
from allennlp.training.metrics import Metric

from spigot_allennlp.functional.trees import tree_depths
from spigot_allennlp.metrics.masked_mean import MaskedMean
from spigot_allennlp.metrics.reduced_once import ReducedOnce


@Metric.register("tree_scores")
class TreeScores(ReducedOnce):
    """
    Of an intermediate tree: attachment scores against gold syntax, all tokens counted, and its depth, the
    mean over sentences of the number of arcs from ROOT to the deepest word. A cyclic "tree" (of `single_head`) has no
    depth and is left out of that mean.
    """

    def __init__(self) -> None:
        self._means = {name: MaskedMean() for name in ("uas", "las", "tree_depth")}

    def __call__(
        self,
        heads: torch.Tensor,
        relations: Optional[torch.Tensor],
        gold_heads: Optional[torch.Tensor],
        gold_relations: Optional[torch.Tensor],
    ) -> None:
        """
        # Parameters

        heads, relations, gold_heads, gold_relations : `torch.Tensor`
            `(batch, tokens)`, -1 where there is none; `None` where not known at all.
        """
        if gold_heads is not None:
            known = gold_heads >= 0
            correct = heads == gold_heads
            self._means["uas"](correct, known)
            if relations is not None and gold_relations is not None:
                self._means["las"](correct & (relations == gold_relations), known)
        depths = tree_depths(heads)
        acyclic = (depths >= 0).all(-1) & (heads >= 0).any(-1)
        self._means["tree_depth"](depths.max(-1).values, acyclic)

    def get_metric(self, reset: bool = False) -> Dict[str, float]:
        """
        # Returns

        `Dict[str, float]`
            `uas`, `las` and `tree_depth`, as far as anything was counted.
        """
        means = {name: mean.get_metric(reset) for name, mean in self._means.items()}
        return {name: mean for name, mean in means.items() if not math.isnan(mean)}

    def reset(self) -> None:
        for mean in self._means.values():
            mean.reset()
