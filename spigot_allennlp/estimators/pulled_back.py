from typing import Callable, Dict, Optional

import torch
from allennlp.common.checks import ConfigurationError

from spigot_allennlp.checks import at_least_one, one_of, positive
from spigot_allennlp.estimators.estimator import Downstream, Estimator, EstimatorOutput
from spigot_allennlp.estimators.surrogate import (
    PullBackDiagnostics,
    attach_as_loss_term,
    attach_in_one_pass,
    per_instance,
)
from spigot_allennlp.structures import LatentStructure
from spigot_allennlp.structures.latent_structure import registered_name

# The three maps from scores to a point of the marginal polytope, by the operation that computes them.
_MAPS = {"argmax": "argmax", "marginals": "marginals", "sparsemap": "project"}
_UPDATES = ("gradient", "projected_gradient", "exponentiated_gradient")
# Each intermediate loss is a Fenchel-Young loss; its gradient at the scores is map(s) - m for this map.
_LOSS_MAPS = {"perceptron": "argmax", "cross_entropy": "marginals", "sparsemap": "sparsemap"}


def _apply_map(
    name: str, scores: torch.Tensor, mask: Optional[torch.Tensor], structure: LatentStructure
) -> torch.Tensor:
    return getattr(structure, _MAPS[name])(scores, mask)


@Estimator.register("pulled_back")
class PulledBack(Estimator):
    """
    The family of pulled-back estimators (Mihaylova, Niculae and Martins 2020, section 3).

    Pretend that the best latent value for the downstream loss, `m* = argmin_{m in M} L(m)`, were the parser's gold
    label; find it approximately by `num_steps` gradient steps; give the scores the gradient of an intermediate loss
    towards it:

        m_0     = start(s)
        m_{t+1} = update(m_t, g(m_t)),  g(m) = dL/dm of one instance
        ds      = map(s) - m_k

    where `map` belongs to the intermediate loss. With one step from the forward value the downstream model is run
    once, forward and backward; otherwise each step runs it once more.

    # Parameters

    start : `str`, optional (default = `"argmax"`)
        `m_0`: `"argmax"`, `"marginals"` or `"sparsemap"`.
    update : `str`, optional (default = `"projected_gradient"`)
        `"gradient"`: `m - step_size * g`. `"projected_gradient"`: that, projected by the structure.
        `"exponentiated_gradient"`: `theta <- theta - step_size * g`, `m <- marginals(theta)`, from `theta = s`.
    intermediate_loss : `str`, optional (default = `"perceptron"`)
        `"perceptron"` (map: argmax), `"cross_entropy"` (marginals) or `"sparsemap"` (SparseMAP).
    forward_map : `str`, optional (default = `"argmax"`)
        Value that the downstream model sees, with the values of `start`.
    step_size : `float`, optional (default = `1.0`)
        Size of a step, in parts per unit of one instance's loss; not divided by the batch size.
    num_steps : `int`, optional (default = `1`)
        Number of pull-back steps.
    max_gradient_norm : `float`, optional (default = `None`)
        The L2 norm over one instance's whole structure to which `g` is clipped before each step (Peng et al. 2018
        use 1).
    center_gradient : `bool`, optional (default = `False`)
        Whether the mean of `g` over the parts that compete, such as a word's heads, is subtracted from it, before its
        norm is clipped (Sahoo et al. 2023). What is subtracted moves all of a word's scores alike, which changes no
        tree. `ste` can no longer drift in that direction, without bound; a projection drops it in any case, so that
        `spigot` changes only as far as the norm was clipped.
    relaxed_evaluation : `bool`, optional (default = `False`)
        Whether evaluation, too, uses `forward_map`; otherwise argmax.

    # Errors

    `ConfigurationError` for values out of range.
    """

    diagnostics = (*Estimator.diagnostics, *PullBackDiagnostics.names)

    def __init__(
        self,
        start: str = "argmax",
        update: str = "projected_gradient",
        intermediate_loss: str = "perceptron",
        forward_map: str = "argmax",
        step_size: float = 1.0,
        num_steps: int = 1,
        max_gradient_norm: float = None,
        center_gradient: bool = False,
        relaxed_evaluation: bool = False,
    ) -> None:
        super().__init__()
        self.start = one_of("start", start, tuple(_MAPS))
        self.update = one_of("update", update, _UPDATES)
        self.intermediate_loss = one_of("intermediate_loss", intermediate_loss, tuple(_LOSS_MAPS))
        self.forward_map = one_of("forward_map", forward_map, tuple(_MAPS))
        self.step_size = positive("step_size", step_size)
        self.num_steps = at_least_one("num_steps", num_steps)
        self.max_gradient_norm = None if max_gradient_norm is None else positive("max_gradient_norm", max_gradient_norm)
        self.center_gradient = center_gradient
        self.relaxed_evaluation = relaxed_evaluation
        operations = [_MAPS[name] for name in (start, _LOSS_MAPS[intermediate_loss], forward_map)]
        operations += {"gradient": [], "projected_gradient": ["project"]}.get(update, ["marginals"])
        self.requires = tuple(dict.fromkeys(operations))

    def check(self, structure: LatentStructure) -> None:
        super().check(structure)
        if self.center_gradient and structure.competing_dimensions == 0:
            raise ConfigurationError(
                f"center_gradient needs parts that compete, such as a word's heads in a tree; "
                f"{registered_name(LatentStructure, type(structure))} has none. Valid: center_gradient: false"
            )

    def evaluation_value(
        self, scores: torch.Tensor, mask: Optional[torch.Tensor], structure: LatentStructure
    ) -> torch.Tensor:
        name = self.forward_map if self.relaxed_evaluation else "argmax"
        return _apply_map(name, scores, mask, structure)

    def _estimate(
        self,
        scores: torch.Tensor,
        mask: Optional[torch.Tensor],
        structure: LatentStructure,
        downstream: Downstream,
    ) -> EstimatorOutput:
        fixed = scores.detach()
        maps: Dict[str, torch.Tensor] = {}

        def mapped(name: str) -> torch.Tensor:
            if name not in maps:
                maps[name] = _apply_map(name, fixed, mask, structure)
            return maps[name]

        value, start = mapped(self.forward_map), mapped(self.start)
        diagnostics = PullBackDiagnostics(scores)

        def surrogate(pulled: torch.Tensor) -> torch.Tensor:
            difference = mapped(_LOSS_MAPS[self.intermediate_loss]).to(pulled.dtype) - pulled
            diagnostics.record(start, pulled, difference)
            return difference

        if self.num_steps == 1 and self.start == self.forward_map:

            def one_step(gradient: torch.Tensor) -> torch.Tensor:
                # A retained graph may come here again, and then begins anew.
                step = self._stepper(fixed, mask, structure)
                return surrogate(step(start.to(gradient.dtype), gradient))

            outputs, instance_loss = attach_in_one_pass(scores, value, one_step, downstream)
            return EstimatorOutput(value, outputs, instance_loss, diagnostics.tensors)

        outputs = downstream(value)
        instance_loss = outputs.get("instance_loss")
        if instance_loss is not None and torch.is_grad_enabled():
            point, step = start, self._stepper(fixed, mask, structure)
            for _ in range(self.num_steps):
                point = step(point, downstream_gradient(point, downstream))
            instance_loss = attach_as_loss_term(instance_loss, scores, surrogate(point))
            outputs = {**outputs, "instance_loss": instance_loss}
        return EstimatorOutput(value, outputs, instance_loss, diagnostics.tensors)

    def _stepper(
        self, scores: torch.Tensor, mask: Optional[torch.Tensor], structure: LatentStructure
    ) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
        """The update of `m` given `g`, for one run of the pull-back."""
        theta = scores
        # Parts that cannot be are out of M: what the downstream model does with them is ignored.
        possible = structure.legal_parts(scores, mask) & ~scores.isneginf()

        def step(point: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
            nonlocal theta
            gradient = gradient.masked_fill(~possible, 0.0)
            if self.center_gradient:
                gradient = structure.center(gradient, possible)
            if self.max_gradient_norm is not None:
                norm = gradient.flatten(1).norm(dim=-1)
                factor = (self.max_gradient_norm / norm.clamp(min=self.max_gradient_norm)).to(gradient.dtype)
                gradient = gradient * per_instance(factor, gradient)
            if self.update == "exponentiated_gradient":
                theta = theta - self.step_size * gradient
                return structure.marginals(theta, mask)
            point = point - self.step_size * gradient
            if self.update == "gradient":
                return point
            return structure.project(point.masked_fill(~possible, -torch.inf), mask)

        return step


def downstream_gradient(point: torch.Tensor, downstream: Downstream) -> torch.Tensor:
    """
    `g(m) = dL/dm` of each instance's own loss at `point`, `(batch, ...)`, by one run of the downstream model.
    """
    with torch.enable_grad():
        point = point.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(
            downstream(point)["instance_loss"].sum(), point, allow_unused=True, materialize_grads=True
        )
    return gradient


class _NamedPulledBack(PulledBack):
    """
    A member of the family with a name of its own: `composition` fixes what makes it, the rest are keys.
    """

    composition: Dict[str, str] = {}

    def __init__(
        self,
        step_size: float = 1.0,
        num_steps: int = 1,
        max_gradient_norm: float = None,
        center_gradient: bool = False,
        forward_map: str = "argmax",
        relaxed_evaluation: bool = False,
    ) -> None:
        super().__init__(
            **self.composition,
            step_size=step_size,
            num_steps=num_steps,
            max_gradient_norm=max_gradient_norm,
            center_gradient=center_gradient,
            forward_map=forward_map,
            relaxed_evaluation=relaxed_evaluation,
        )


@Estimator.register("ste")
class StraightThrough(_NamedPulledBack):
    """
    STE-Identity: the gradient passes the argmax unchanged, `ds = step_size * g(z^)` (Bengio et al. 2013; Mihaylova
    et al. 2020, section 3.1). Parameters as in `PulledBack`.
    """

    composition = {"start": "argmax", "update": "gradient", "intermediate_loss": "perceptron"}


@Estimator.register("spigot")
class Spigot(_NamedPulledBack):
    """
    SPIGOT, structured projection of intermediate gradients: `ds = z^ - Proj(z^ - step_size * g(z^))` (Peng, Thomson
    and Smith 2018, section 3). `Proj` is exact or relaxed as the structure says. Parameters as in `PulledBack`.
    """

    composition = {"start": "argmax", "update": "projected_gradient", "intermediate_loss": "perceptron"}


@Estimator.register("spigot_ce")
class SpigotCrossEntropy(_NamedPulledBack):
    """
    SPIGOT-CE: starts at the marginals and ends in the cross-entropy, `ds = p^ - Proj(p^ - step_size * g(p^))`
    (Mihaylova et al. 2020, section 3.3). Parameters as in `PulledBack`.
    """

    composition = {"start": "marginals", "update": "projected_gradient", "intermediate_loss": "cross_entropy"}


@Estimator.register("spigot_eg")
class SpigotExponentiatedGradient(_NamedPulledBack):
    """
    SPIGOT-EG: as `spigot_ce`, with exponentiated gradient in place of projection,
    `ds = p^ - marginals(s - step_size * g(p^))` (Mihaylova et al. 2020, section 3.4). Parameters as in `PulledBack`.
    """

    composition = {
        "start": "marginals",
        "update": "exponentiated_gradient",
        "intermediate_loss": "cross_entropy",
    }
