from typing import Callable, Dict, NamedTuple, Optional, Tuple

import torch
from allennlp.common import Registrable
from allennlp.common.checks import ConfigurationError

from spigot_allennlp.functional.derivatives import refuse_transforms
from spigot_allennlp.structures.latent_structure import LatentStructure, registered_name

Downstream = Callable[[torch.Tensor], Dict[str, torch.Tensor]]
"""
What follows the latent structure: takes `z` and returns the model's outputs, with `"instance_loss"`, `(batch,)`,
where gold labels are known. Pure: it updates no metric and calls no `backward()`.
"""


class EstimatorOutput(NamedTuple):
    """
    # Parameters

    value : `torch.Tensor`
        Value of `z` in the forward pass, in the shape of the scores.
    outputs : `Dict[str, torch.Tensor]`
        The downstream outputs at `value`.
    instance_loss : `torch.Tensor`, optional
        `(batch,)`: the loss of each instance, which carries the surrogate gradient. Reduce and scale it at will.
        `None` without gold labels.
    diagnostics : `Dict[str, torch.Tensor]`
        `(batch,)` each. Those that describe the pull-back of a single-step estimator are known once the backward
        pass has run, and NaN until then.
    """

    value: torch.Tensor
    outputs: Dict[str, torch.Tensor]
    instance_loss: Optional[torch.Tensor]
    diagnostics: Dict[str, torch.Tensor]


class Estimator(torch.nn.Module, Registrable):
    """
    Decides which latent value the downstream model sees and what gradient flows back to the scores.

    The gradient that reaches the scores of an instance is `c * surrogate(g)`, where `g` is the gradient of that
    instance's own, unscaled loss and `c = d(total loss) / d(instance loss)`: it does not depend on batch size, loss
    scaling, accumulation or on other instances.

    In evaluation mode the downstream model is called once, at the noiseless forward value, and no surrogate is
    attached. An estimator with a relaxed forward pass takes the key `relaxed_evaluation`: whether evaluation, too, uses
    the relaxation, instead of the structure's argmax.
    """

    default_implementation = "spigot"

    # The structure's operations that the estimator calls; models check them when they are built.
    requires: Tuple[str, ...] = ()

    # Whether the structure must be one of independent choices, such as `categorical`; checked there, too.
    needs_independent_rows: bool = False

    # The keys of the diagnostics that a training step gives; these two are given for every estimator that lists them.
    diagnostics: Tuple[str, ...] = ("score_rms", "mean_score_rms")

    # Whether evaluation sees a relaxation instead of the structure's argmax.
    relaxed_evaluation: bool = False

    # Whether anything of the downstream loss reaches the scores.
    trains_scores: bool = True

    def __init__(self) -> None:
        # torch's takes any keyword, and a misspelt key of a config would get there.
        super().__init__()

    def forward(
        self,
        scores: torch.Tensor,
        mask: Optional[torch.Tensor],
        structure: LatentStructure,
        downstream: Downstream,
    ) -> EstimatorOutput:
        """
        # Parameters

        scores : `torch.Tensor`
            The scores of the parts, `(batch, dependents, heads)` for arcs.
        mask : `torch.Tensor`, optional
            The structure's mask.
        structure : `LatentStructure`
            Set of structures that the value is from.
        downstream : `Callable[[Tensor], Dict[str, Tensor]]`
            Function from the latent value to the downstream outputs.

        # Returns

        `EstimatorOutput`

        # Errors

        `TypeError` if `structure` and `downstream` are not what they should be, or the latter does not return a
        dictionary. `ValueError` if its `instance_loss` is not one number for each instance, or has another name.
        """
        if not isinstance(structure, LatentStructure) or not callable(downstream):
            given = ", ".join(type(argument).__name__ for argument in (structure, downstream))
            raise TypeError(
                f"structure and downstream are {given}; valid: (scores, mask, structure, downstream) in this order, "
                "with a LatentStructure and a function of z"
            )
        refuse_transforms(scores)

        def checked_downstream(value: torch.Tensor) -> Dict[str, torch.Tensor]:
            outputs = downstream(value)
            if not isinstance(outputs, dict):
                raise TypeError(
                    f"downstream returned a {type(outputs).__name__}; valid: a dictionary with 'instance_loss', one "
                    "loss for each instance"
                )
            if "instance_loss" not in outputs and "loss" in outputs:
                raise ValueError(
                    "downstream returned 'loss', but no 'instance_loss'; valid: 'instance_loss', one loss for each "
                    f"instance, {tuple(scores.shape[:1])}, which is reduced afterwards"
                )
            loss = outputs.get("instance_loss")
            if loss is not None and loss.shape != scores.shape[:1]:
                raise ValueError(
                    f"instance_loss has shape {tuple(loss.shape)}; valid: one loss for each instance, "
                    f"{tuple(scores.shape[:1])}"
                )
            return outputs

        if not self.training:
            value = self.evaluation_value(scores, mask, structure)
            outputs = checked_downstream(value)
            return EstimatorOutput(value, outputs, outputs.get("instance_loss"), {})
        output = self._estimate(scores, mask, structure, checked_downstream)
        of_scores = score_diagnostics(scores, mask, structure)
        listed = {name: value for name, value in of_scores.items() if name in self.diagnostics}
        return output._replace(diagnostics={**listed, **output.diagnostics})

    def check(self, structure: LatentStructure) -> None:
        """
        # Errors

        `ConfigurationError` if `structure` lacks an operation or a property that this estimator requires.
        """
        names = registered_name(Estimator, type(self)), registered_name(LatentStructure, type(structure))
        for operation in ("argmax", *self.requires):
            if not structure.supports(operation):
                raise ConfigurationError(
                    f"the estimator {names[0]} needs the operation '{operation}', "
                    f"which the structure {names[1]} does not support"
                )
        if self.needs_independent_rows and not structure.independent_rows:
            raise ConfigurationError(
                f"the estimator {names[0]} does not take the structure {names[1]}; valid: one whose rows are "
                "independent choices, such as 'categorical' or 'single_head'"
            )

    def _estimate(
        self,
        scores: torch.Tensor,
        mask: Optional[torch.Tensor],
        structure: LatentStructure,
        downstream: Downstream,
    ) -> EstimatorOutput:
        raise NotImplementedError

    def evaluation_value(
        self, scores: torch.Tensor, mask: Optional[torch.Tensor], structure: LatentStructure
    ) -> torch.Tensor:
        """
        What the downstream model sees in evaluation, in the scores' shape: noiseless, and with no surrogate gradient.
        """
        return structure.argmax(scores, mask)


@torch.no_grad()
def score_diagnostics(
    scores: torch.Tensor, mask: Optional[torch.Tensor], structure: LatentStructure
) -> Dict[str, torch.Tensor]:
    """
    How large the scores are, `(batch,)` each; NaN for instances without any part.

    - `score_rms`: the root of the mean square of all scores;
    - `mean_score_rms`: the same of the mean scores, each over the parts that compete (a word's heads): no structure
      depends on that mean, and no other loss holds it.
    """
    possible = structure.legal_parts(scores, mask) & ~scores.isneginf()
    finite = torch.where(possible, scores.detach(), 0.0).float()
    dimensions = tuple(range(-max(structure.competing_dimensions, 1), 0))
    counts = possible.sum(dimensions)
    means = finite.sum(dimensions) / counts.clamp(min=1)

    def rms(values: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
        squares = values.square().reshape(len(scores), -1).sum(-1)
        return (squares / present.reshape(len(scores), -1).sum(-1)).sqrt()

    return {"score_rms": rms(finite, possible), "mean_score_rms": rms(means, counts > 0)}
