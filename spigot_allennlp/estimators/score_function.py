from typing import Optional

import torch
from allennlp.common.checks import ConfigurationError

from spigot_allennlp.checks import at_least_one, nonnegative, one_of
from spigot_allennlp.estimators.estimator import Downstream, Estimator, EstimatorOutput
from spigot_allennlp.structures import LatentStructure

_BASELINES = ("none", "moving_average", "self_critic", "leave_one_out")
_DECAY = 0.99


@Estimator.register("score_function")
class ScoreFunction(Estimator):
    """
    The score-function estimator (REINFORCE, Williams 1992) of the gradient of `E_{p(z; s)}[L(z)]`:
    `(L(z) - b) d log p(z; s)` over exact samples `z`. Unbiased. The instance loss is the mean over the samples.

    # Parameters

    num_samples : `int`, optional (default = `1`)
        Runs of the downstream model for each batch.
    baseline : `str`, optional (default = `"moving_average"`)
        `b`: `"none"`; `"moving_average"` of the loss over earlier batches (decay .99; kept in the state dict);
        `"self_critic"`, `L(z^)` (Rennie et al. 2017), one more run; `"leave_one_out"`, the mean loss of the other
        samples (Kool et al. 2019), which takes at least two.
    entropy_weight : `float`, optional (default = `0.0`)
        Subtracts `entropy_weight * H(p)` from the instance loss, which keeps the distribution from collapsing.

    # Errors

    `ConfigurationError` for values out of range.
    """

    requires = ("sample", "log_prob")

    def __init__(self, num_samples: int = 1, baseline: str = "moving_average", entropy_weight: float = 0.0) -> None:
        super().__init__()
        self.num_samples = at_least_one("num_samples", num_samples)
        self.baseline = one_of("baseline", baseline, _BASELINES)
        if baseline == "leave_one_out" and num_samples < 2:
            raise ConfigurationError(f"num_samples is {num_samples}; the baseline 'leave_one_out' takes >= 2")
        self.entropy_weight = nonnegative("entropy_weight", entropy_weight)
        self.diagnostics = ("entropy",) if entropy_weight > 0 else ()
        self.average_loss: Optional[torch.Tensor]
        self.num_batches: Optional[torch.Tensor]
        averages = baseline == "moving_average"
        self.register_buffer("average_loss", torch.tensor(0.0) if averages else None)
        self.register_buffer("num_batches", torch.tensor(0) if averages else None)

    def _estimate(
        self,
        scores: torch.Tensor,
        mask: Optional[torch.Tensor],
        structure: LatentStructure,
        downstream: Downstream,
    ) -> EstimatorOutput:
        # shape: (num_samples, batch, ...)
        samples = structure.sample(scores, mask, self.num_samples)
        outputs = downstream(samples[0])
        if "instance_loss" not in outputs:
            return EstimatorOutput(samples[0], outputs, None, {})
        # shape: (num_samples, batch)
        losses = torch.stack([outputs["instance_loss"], *(downstream(z)["instance_loss"] for z in samples[1:])])
        advantages = losses.detach() - self._baseline(losses.detach(), scores, mask, structure, downstream)
        log_prob = structure.log_prob(samples, scores, mask)
        surrogate = (advantages * (log_prob - log_prob.detach())).mean(0)
        instance_loss = losses.mean(0) + surrogate.to(losses.dtype)
        diagnostics = {}
        if self.entropy_weight > 0:
            entropy = structure.entropy(scores, mask)
            instance_loss = instance_loss - self.entropy_weight * entropy
            diagnostics["entropy"] = entropy.detach()
        return EstimatorOutput(samples[0], {**outputs, "instance_loss": instance_loss}, instance_loss, diagnostics)

    def _baseline(
        self,
        losses: torch.Tensor,
        scores: torch.Tensor,
        mask: Optional[torch.Tensor],
        structure: LatentStructure,
        downstream: Downstream,
    ) -> torch.Tensor:
        """Broadcastable to the losses, `(num_samples, batch)`."""
        if self.baseline == "leave_one_out":
            return (losses.sum(0) - losses) / (self.num_samples - 1)
        if self.baseline == "self_critic":
            with torch.no_grad():
                return downstream(structure.argmax(scores, mask))["instance_loss"]
        if self.baseline == "moving_average":
            # Of earlier batches only: a baseline that has seen this sample would bias the gradient.
            # The average starts at 0; the divisor is what of its weight has gone to losses so far.
            weight = 1.0 - _DECAY**self.num_batches
            baseline = torch.where(weight > 0, self.average_loss / weight, 0.0)
            self.average_loss.lerp_(losses.mean().to(self.average_loss.dtype), 1.0 - _DECAY)
            self.num_batches.add_(1)
            return baseline
        return losses.new_zeros(())
