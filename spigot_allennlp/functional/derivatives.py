"""
What kernels and surrogates have no derivatives for, and what torch's own words for that leave open.
"""

from functools import wraps
from typing import Any, Callable, List, Tuple

import torch

MARGINALS_ONCE = (
    "these marginals can be differentiated once and their log-partition twice, but not any further: the kernels have "
    "no higher derivatives"
)


class _NoFurtherDerivative(torch.autograd.Function):
    """The identity on a gradient; torch comes back here if it is differentiated with respect to any of `inputs`."""

    @staticmethod
    def forward(ctx: Any, gradient: torch.Tensor, message: str, *inputs: torch.Tensor) -> torch.Tensor:
        ctx.message = message
        return gradient.clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Tuple[None, ...]:
        raise RuntimeError(ctx.message)


def last_derivative(message: str) -> Callable[[Callable], Callable]:
    """
    For the `backward` of a `torch.autograd.Function` that cannot be differentiated itself, and saves its inputs. With
    `create_graph=True` its gradients are given, and differentiating them raises a `RuntimeError` with `message`; by
    torch's `once_differentiable` the gradient of a plain loss would look as if it were constant.
    """

    def decorate(backward: Callable) -> Callable:
        @wraps(backward)
        def wrapper(ctx: Any, *gradients: torch.Tensor) -> Any:
            creates_graph = torch.is_grad_enabled()
            with torch.no_grad():
                results = backward(ctx, *gradients)
            if not creates_graph:
                return results
            inputs = [tensor for tensor in (*gradients, *ctx.saved_tensors) if tensor.requires_grad]
            return tuple(result if result is None else guard(result, inputs) for result in results)

        def guard(result: torch.Tensor, inputs: List[torch.Tensor]) -> torch.Tensor:
            return _NoFurtherDerivative.apply(result, message, *inputs)

        return wrapper

    return decorate


def refuse_transforms(tensor: torch.Tensor) -> None:
    """
    # Errors

    `RuntimeError` inside `torch.func.vmap`, `grad` and the like, which do not see into compiled kernels.
    """
    wrapped = getattr(torch._C._functorch, "is_functorch_wrapped_tensor", None)
    if wrapped is not None and wrapped(tensor):
        raise RuntimeError(
            "structures and estimators do not work inside torch.func.vmap, torch.func.grad and other transforms of "
            "torch.func; valid: one call for the whole batch, as all operations are batched, and torch.autograd"
        )
