import math
from typing import Dict, List, Optional, Sequence

import torch
from allennlp.training.metrics import Metric

from spigot_allennlp.data.sentence import coarse_label
from spigot_allennlp.functional.trees import tree_depths
from spigot_allennlp.metrics.masked_mean import MaskedMean
from spigot_allennlp.metrics.reduced_once import ReducedOnce


@Metric.register("tree_scores")
class TreeScores(ReducedOnce):
    """
    Attachment scores of trees against gold ones, all tokens counted, and their depth.

    In `uas` a word is right with its head; in `las` with its head and its relation, whose subtype (after `:`) does not
    count, as in the CoNLL 2018 and IWPT 2020 shared tasks (Zeman et al. 2018, section 5). `tree_depth` is the mean over
    sentences of the number of arcs from ROOT to the deepest word. A cyclic "tree" (of `single_head`) has no depth and
    is left out of that mean.
    """

    def __init__(self) -> None:
        self._means = {name: MaskedMean() for name in ("uas", "las", "tree_depth")}

    def __call__(
        self,
        heads: torch.Tensor,
        gold_heads: Optional[torch.Tensor] = None,
        relations: Optional[Sequence[Optional[List[str]]]] = None,
        gold_relations: Optional[Sequence[Optional[List[str]]]] = None,
    ) -> None:
        """
        # Parameters

        heads, gold_heads : `torch.Tensor`
            `(batch, tokens)`, -1 where there is none; `None` where no gold trees are known.
        relations, gold_relations : `Sequence[Optional[List[str]]]`, optional
            The relation of each word (without ROOT) of each sentence; `None` where not known.
        """
        if gold_heads is not None:
            known = gold_heads >= 0
            correct = heads == gold_heads
            self._means["uas"](correct, known)
            pairs = list(zip(relations or (), gold_relations or ()))
            if pairs and not any(None in pair for pair in pairs):
                self._means["las"](correct & self._same(pairs, known), known)
        depths = tree_depths(heads)
        acyclic = (depths >= 0).all(-1) & (heads >= 0).any(-1)
        self._means["tree_depth"](depths.max(-1).values, acyclic)

    @staticmethod
    def _same(pairs: Sequence[Sequence[List[str]]], known: torch.Tensor) -> torch.Tensor:
        """Where relations are the same: boolean, of the shape of `known`."""
        same = torch.zeros_like(known, device="cpu")
        for row, (relations, gold_relations) in enumerate(pairs):
            agree = [coarse_label(first) == coarse_label(second) for first, second in zip(relations, gold_relations)]
            same[row, 1 : 1 + len(agree)] = torch.tensor(agree)
        return same.to(known.device)

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
