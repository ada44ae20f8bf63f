from typing import Optional

import torch
from allennlp.data import Vocabulary
from allennlp.models import Model

from spigot_allennlp.estimators import Downstream, Estimator, EstimatorOutput
from spigot_allennlp.functional.trees import heads_from_arcs
from spigot_allennlp.metrics import EstimatorDiagnostics
from spigot_allennlp.structures import LatentStructure


class LatentStructureModel(Model):
    """
    What all models with a latent structure share: the structure, and an estimator, which decides what of the loss
    reaches the scores of the structure's parts.

    # Parameters

    vocab : `Vocabulary`
        The model's vocabulary.
    """

    def __init__(self, vocab: Vocabulary, **kwargs) -> None:
        super().__init__(vocab, **kwargs)
        self._diagnostics: Optional[EstimatorDiagnostics] = None

    def _set_latent(
        self, structure: LatentStructure, estimator: Optional[Estimator], scorer: Optional[torch.nn.Module] = None
    ) -> None:
        """
        To be called unless the model is a baseline without a latent structure.

        # Parameters

        structure : `LatentStructure`
            The model's structure.
        estimator : `Estimator`, optional
            The model's estimator; `None` for the default one.
        scorer : `torch.nn.Module`, optional (default = `None`)
            The part of the model that learns through the estimator only.

        # Errors

        `ConfigurationError` for a structure that the estimator cannot work with.
        """
        self.structure = structure
        self.estimator = estimator or Estimator.by_name(Estimator.default_implementation)()
        self.estimator.check(structure)
        self._diagnostics = EstimatorDiagnostics(self.estimator.diagnostics)
        if scorer is not None and not self.estimator.trains_scores:
            # Nothing reaches it; distributed training would wait for its gradient.
            scorer.requires_grad_(False)

    def _estimate(self, scores: torch.Tensor, mask: Optional[torch.Tensor], downstream: Downstream) -> EstimatorOutput:
        """
        What the estimator makes of the scores. Its diagnostics are counted.
        """
        estimate = self.estimator(scores, mask, self.structure, downstream)
        self._diagnostics(estimate.diagnostics)
        return estimate

    def _decoded_heads(self, value: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """
        # Parameters

        value : `torch.Tensor`
            What was conditioned on, `(..., dependents, heads)`.
        mask : `torch.Tensor`
            `(..., tokens)`.

        # Returns

        `torch.Tensor`
            `(..., tokens)`: the heads. For a relaxed tree in evaluation, the heads of the tree that has most of its
            mass.
        """
        if not self.training and self.estimator.relaxed_evaluation:
            value = self.structure.argmax(value, mask)
        return heads_from_arcs(value.detach())
