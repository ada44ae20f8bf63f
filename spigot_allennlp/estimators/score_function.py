from typing import Any, List, Optional, Tuple

import torch
from allennlp.common.checks import ConfigurationError

from spigot_allennlp.checks import at_least_one, nonnegative, one_of
from spigot_allennlp.estimators.estimator import Downstream, Estimator, EstimatorOutput
from spigot_allennlp.functional.noise import antithetic_pairs
from spigot_allennlp.structures import LatentStructure

_BASELINES = ("none", "moving_average", "self_critic", "leave_one_out", "disarm")
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
        samples (Kool et al. 2019), which takes at least two; `"disarm"`, the loss of the other sample of an antithetic
        pair, for independent choices only, with an even number of samples. For two options that is DisARM (Dong et al.
        2020) or ARMS with pairs (Dimitriev and Zhou 2021); for the pairs of more see `antithetic_pairs`.
    entropy_weight : `float`, optional (default = `0.0`)
        Weight of the entropy: `entropy_weight * H(p)` is subtracted from the instance loss, which keeps the
        distribution from collapsing.
    prior_weight : `float`, optional (default = `0.0`)
        Weight of the prior: `prior_weight * KL(p || prior)` is added to the instance loss, with its exact gradient.
        With weight 1 and a downstream loss of `-log p(x | z)` the sum is the negative evidence lower bound.
    prior_scores : `List`, optional (default = `None`)
        The scores of the prior, nested lists that broadcast to the scores of an instance, such as `K` numbers for a
        `categorical` of `K` values; by default the prior is uniform.

    # Errors

    `ConfigurationError` for values out of range, for `prior_scores` without a `prior_weight` or that do not fit the
    scores, and, when a model is built, for `"disarm"` with a structure that is not one of independent choices.
    """

    def __init__(
        self,
        num_samples: int = 1,
        baseline: str = "moving_average",
        entropy_weight: float = 0.0,
        prior_weight: float = 0.0,
        prior_scores: List[Any] = None,
    ) -> None:
        super().__init__()
        self.num_samples = at_least_one("num_samples", num_samples)
        self.baseline = one_of("baseline", baseline, _BASELINES)
        if baseline == "leave_one_out" and num_samples < 2:
            raise ConfigurationError(f"num_samples is {num_samples}; the baseline 'leave_one_out' takes >= 2")
        if baseline == "disarm" and num_samples % 2 == 1:
            raise ConfigurationError(f"num_samples is {num_samples}; the baseline 'disarm' takes an even number")
        self.needs_independent_rows = baseline == "disarm"
        self.entropy_weight = nonnegative("entropy_weight", entropy_weight)
        self.prior_weight = nonnegative("prior_weight", prior_weight)
        if prior_scores is not None and prior_weight == 0:
            raise ConfigurationError("prior_scores are given, but prior_weight is 0; valid: a prior_weight > 0")
        self.prior_scores = None if prior_scores is None else _tensor("prior_scores", prior_scores)
        terms = {"entropy": entropy_weight > 0, "kl_divergence": prior_weight > 0}
        reported = tuple(name for name, there in terms.items() if there)
        self.diagnostics = (*Estimator.diagnostics, *reported)
        self.requires = ("sample", "marginals" if baseline == "disarm" else "log_prob", *reported)
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
        samples, pair_weights = self._sample(scores, mask, structure)
        outputs = downstream(samples[0])
        if "instance_loss" not in outputs:
            return EstimatorOutput(samples[0], outputs, None, {})
        # shape: (num_samples, batch)
        losses = torch.stack([outputs["instance_loss"], *(downstream(z)["instance_loss"] for z in samples[1:])])
        if pair_weights is not None:
            surrogate = _pair_surrogate(losses.detach(), samples, pair_weights, scores)
        else:
            advantages = losses.detach() - self._baseline(losses.detach(), scores, mask, structure, downstream)
            log_prob = structure.log_prob(samples, scores, mask)
            surrogate = (advantages * (log_prob - log_prob.detach())).mean(0)
        instance_loss = losses.mean(0) + surrogate.to(losses.dtype)
        diagnostics = {}
        if self.entropy_weight > 0:
            entropy = structure.entropy(scores, mask)
            instance_loss = instance_loss - self.entropy_weight * entropy
            diagnostics["entropy"] = entropy.detach()
        if self.prior_weight > 0:
            divergence = structure.kl_divergence(scores, self._prior(scores), mask)
            instance_loss = instance_loss + self.prior_weight * divergence
            diagnostics["kl_divergence"] = divergence.detach()
        return EstimatorOutput(samples[0], {**outputs, "instance_loss": instance_loss}, instance_loss, diagnostics)

    def _sample(
        self, scores: torch.Tensor, mask: Optional[torch.Tensor], structure: LatentStructure
    ) -> Tuple[torch.Tensor, Optional[torch.Tensor]]:
        """Samples `(num_samples, batch, ...)`, and the weights of their rows where they are pairs."""
        if self.baseline != "disarm":
            return structure.sample(scores, mask, self.num_samples), None
        probabilities = structure.marginals(scores.detach(), mask)
        first, second, weights = antithetic_pairs(probabilities, self.num_samples // 2)
        return torch.stack([first, second], dim=1).flatten(0, 1), weights

    def _prior(self, scores: torch.Tensor) -> torch.Tensor:
        if self.prior_scores is None:
            return torch.zeros_like(scores)
        prior = self.prior_scores.to(scores)
        try:
            return prior.expand_as(scores)
        except RuntimeError:
            raise ConfigurationError(
                f"prior_scores have the shape {tuple(prior.shape)}; valid: one that broadcasts to the scores of an "
                f"instance, {tuple(scores.shape[1:])}"
            ) from None

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


def _tensor(name: str, numbers: List[Any]) -> torch.Tensor:
    try:
        tensor = torch.tensor(numbers, dtype=torch.double)
    except (TypeError, ValueError):
        tensor = None
    if tensor is None or tensor.dim() == 0 or not tensor.isfinite().all():
        raise ConfigurationError(f"{name} is {str(numbers)[:80]}; valid: nested lists of finite numbers")
    return tensor


def _pair_surrogate(
    losses: torch.Tensor, samples: torch.Tensor, weights: torch.Tensor, scores: torch.Tensor
) -> torch.Tensor:
    """
    `1/2 (L(a) - L(b)) sum_rows w (log p(a) - log p(b))`, minus its value, as the mean over pairs: `(batch,)`. Within a
    row the normalizers cancel.
    """
    differences = (losses[0::2] - losses[1::2]) / 2
    # shape: (pairs, batch, ...)
    moved = weights.unsqueeze(-1) * (samples[0::2] - samples[1::2])
    products = torch.where(moved == 0, 0.0, moved * scores).flatten(2).sum(-1)
    return (differences * (products - products.detach())).mean(0)
