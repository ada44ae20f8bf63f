import inspect
import re
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Union

import torch
from allennlp.common.checks import ConfigurationError
from allennlp.models import Model
from allennlp.training import GradientDescentTrainer, gradient_descent_trainer

from spigot_allennlp.checks import positive
from spigot_allennlp.training.distributed_trainer import DistributedTrainer

GradNorm = Union[float, bool, Dict[str, float]]

# The key for all parameters that no pattern matches.
DEFAULT = "default"


class NormGroup(NamedTuple):
    """Parameters whose gradient is clipped to one norm."""

    parameters: List[torch.nn.Parameter]
    max_norm: float


class GroupedNormTrainer(DistributedTrainer):
    """
    A trainer whose `grad_norm` may be one for each group of parameters, as if each group had an optimizer of its own
    (Peng et al. 2018 have one for the syntactic parser and one for the semantic one, each with a norm of 1):

        grad_norm: { '^syntactic_parser\\\\.': 1.0, default: 1.0 }

    Keys are regular expressions, searched for in the names of parameters; `default` are all that none of them matches.
    With one norm for all, the part of the model with the larger gradient decides how far the others move.

    Adam needs no more than that: it keeps its averages and counts its steps for each parameter, and leaves out
    parameters without a gradient. For other settings by group there are AllenNLP's `parameter_groups`, for other
    optimizers its `multi`.

    # Parameters

    grad_norm : `Union[float, bool, Dict[str, float]]`, optional (default = `False`)
        Largest L2 norm of the gradient, or of each group's gradient.

    # Errors

    `ConfigurationError` for a pattern that matches no trained parameter, a parameter that two patterns match, one that
    none matches where there is no `default`, a `default` for nothing, a norm that is not above 0, and sharded models.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._norm_groups: Optional[List[NormGroup]] = None
        if isinstance(self._grad_norm, dict):
            if self._ddp_wrapped_model is not None and self._ddp_wrapped_model.is_sharded:
                raise ConfigurationError("grad_norm has groups, but the model is sharded; valid: one number")
            self._norm_groups = norm_groups(self.model, self._grad_norm)

    def rescale_gradients(self) -> Optional[float]:
        if self._norm_groups is None:
            return super().rescale_gradients()
        if self._scaler is not None:
            self._scaler.unscale_(self.optimizer)
        norms = [torch.zeros(())]
        for parameters, max_norm in self._norm_groups:
            parameters = [parameter for parameter in parameters if parameter.grad is not None]
            if parameters:
                # AllenNLP's, which takes sparse gradients, too.
                norms.append(gradient_descent_trainer.clip_grad_norm_(parameters, max_norm).cpu())
        return torch.stack(norms).norm().item()


def takes_groups(from_partial_objects: Callable) -> Callable:
    """A constructor of trainers, for configs in which `grad_norm` has groups."""

    def constructor(cls: Any, *args: Any, **kwargs: Any) -> GradientDescentTrainer:
        return from_partial_objects(cls, *args, **kwargs)

    signature = inspect.signature(from_partial_objects)
    parameters = [
        parameter.replace(annotation=GradNorm) if name == "grad_norm" else parameter
        for name, parameter in signature.parameters.items()
    ]
    constructor.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    constructor.__doc__ = from_partial_objects.__doc__
    return constructor


def norm_groups(model: Model, norms: Dict[str, float]) -> List[NormGroup]:
    """
    The trained parameters of the model, in the groups that `norms` makes of them by their names.

    # Errors

    `ConfigurationError`: see `GroupedNormTrainer`.
    """
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    groups: Dict[str, List[torch.nn.Parameter]] = {pattern: [] for pattern in norms}
    patterns = {pattern: _compiled(pattern) for pattern in norms if pattern != DEFAULT}
    rest = []
    for name, parameter in trained.items():
        matching = [pattern for pattern, compiled in patterns.items() if compiled.search(name)]
        if len(matching) > 1:
            raise ConfigurationError(
                f"grad_norm: the patterns {_listed(matching)} all match the parameter '{name}'; valid: groups that do "
                "not overlap"
            )
        if matching:
            groups[matching[0]].append(parameter)
        else:
            rest.append(name)
    if rest and DEFAULT not in norms:
        raise ConfigurationError(
            f"grad_norm: no pattern matches {len(rest)} of the parameters, such as {_listed(rest)}; valid: the key "
            f"'{DEFAULT}', for all of them"
        )
    groups.update({DEFAULT: [trained[name] for name in rest]} if DEFAULT in norms else {})
    for pattern, parameters in groups.items():
        if not parameters:
            parts = sorted({name.partition(".")[0] for name in trained})
            raise ConfigurationError(
                f"grad_norm: {pattern!r} matches no parameter that is trained; their names begin with {_listed(parts)}"
            )
    return [NormGroup(groups[pattern], positive(f"grad_norm of {pattern!r}", norms[pattern])) for pattern in norms]


def _compiled(pattern: str) -> re.Pattern:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ConfigurationError(f"grad_norm: {pattern!r} is not a regular expression: {error}") from None


def _listed(names: List[str]) -> str:
    return ", ".join(map(repr, names[:5])) + (", ..." if names[5:] else "")
