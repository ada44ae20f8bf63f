"""
How a surrogate gradient gets into the computation graph.

A surrogate is not linear in the downstream gradient, so it must see the gradient `g` of the *unscaled loss of one
instance*, and not what the trainer made of it (divided by the batch size, multiplied by the AMP loss scale, ...). With
`c = d(total loss) / d(instance loss)` the scores receive `c * surrogate(g)`. Two ways lead there:

- `attach_in_one_pass`: where `g` is needed at the forward value itself. The backward pass of a node on the instance
  loss, which runs before the gradient reaches `z`, records `c`; the node at `z` divides by it. No pass of the
  downstream model is added.
- `attach_as_loss_term`: where the surrogate is already known. Adds `<s, surrogate>` to the instance loss, minus its own
  value.
"""

from typing import Callable, Dict, Optional, Tuple

import torch

from spigot_allennlp.estimators.estimator import Downstream
from spigot_allennlp.functional.derivatives import last_derivative


def per_instance(vector: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """`(batch,)` with as many trailing dimensions of size 1 as it needs to broadcast with `like`."""
    return vector.view(-1, *[1] * (like.dim() - 1))


class _LossScale:
    """Where the backward pass of the instance loss leaves `c` for the node at `z`."""

    value: Optional[torch.Tensor] = None


class _RecordLossScale(torch.autograd.Function):
    """The identity on the instance loss; its backward records `c`."""

    @staticmethod
    def forward(ctx, instance_loss: torch.Tensor, scale: _LossScale) -> torch.Tensor:
        ctx.scale = scale
        return instance_loss.clone()

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> Tuple[torch.Tensor, None]:
        ctx.scale.value = gradient.detach()
        return gradient, None


_SURROGATE_ONCE = (
    "a surrogate gradient is not the derivative of a loss and cannot be differentiated itself (create_graph=True); "
    "valid: an estimator that is exact, such as 'marginals' or 'minimum_risk'"
)


class _SurrogateNode(torch.autograd.Function):
    """Forward: a given value for `z`. Backward: `c * surrogate(gradient / c)` for the scores."""

    @staticmethod
    def forward(ctx, scores, value, scale: _LossScale, surrogate) -> torch.Tensor:
        ctx.scale, ctx.surrogate = scale, surrogate
        ctx.save_for_backward(scores)
        return value.clone()

    @staticmethod
    @last_derivative(_SURROGATE_ONCE)
    def backward(ctx, gradient: torch.Tensor):
        # Taken, not read: a later backward pass through a retained graph brings its own.
        scale, ctx.scale.value = ctx.scale.value, None
        if scale is None:
            raise RuntimeError(
                "a gradient reached the latent structure that does not come from EstimatorOutput.instance_loss; "
                "the surrogate gradient is defined for that loss only"
            )
        # Half-precision gradients would under- and overflow in the division.
        working = gradient.double() if gradient.dtype == torch.float64 else gradient.float()
        c = per_instance(scale.to(working.dtype), working)
        g = torch.where(c == 0, 0.0, working / c)
        # An overflow under AMP must reach the scaler as such, which then skips the step; inference takes no NaN.
        finite = g.isfinite().flatten(1).all(-1)
        pulled = ctx.surrogate(torch.where(per_instance(finite, g), g, 0.0))
        pulled = torch.where(per_instance(finite, g), pulled, torch.nan)
        return torch.where(c == 0, 0.0, c * pulled).to(ctx.saved_tensors[0].dtype), None, None, None


def attach_in_one_pass(
    scores: torch.Tensor,
    value: torch.Tensor,
    surrogate: Callable[[torch.Tensor], torch.Tensor],
    downstream: Downstream,
) -> Tuple[Dict[str, torch.Tensor], Optional[torch.Tensor]]:
    """
    Run the downstream model at `value`, such that the scores receive `c * surrogate(g)` in the backward pass.

    # Parameters

    scores : `torch.Tensor`
        Scores that receive the surrogate gradient.
    value : `torch.Tensor`
        Value that the downstream model sees, in the scores' shape.
    surrogate : `Callable[[Tensor], Tensor]`
        Function from `g`, the gradient of each instance's loss at `value`, in at least float32, to
        the gradient for the scores. It is called without gradient tracking.
    downstream : `Downstream`
        Function from the latent value to the downstream outputs.

    # Returns

    `Tuple[Dict[str, Tensor], Optional[Tensor]]`
        The outputs, and the instance loss (also in the outputs) or `None`.
    """
    scale = _LossScale()
    outputs = downstream(_SurrogateNode.apply(scores, value.detach(), scale, surrogate))
    instance_loss = outputs.get("instance_loss")
    if instance_loss is None:
        return outputs, None
    instance_loss = _RecordLossScale.apply(instance_loss, scale)
    return {**outputs, "instance_loss": instance_loss}, instance_loss


def attach_as_loss_term(instance_loss: torch.Tensor, scores: torch.Tensor, surrogate: torch.Tensor) -> torch.Tensor:
    """
    The same instance loss, whose gradient at the scores is, on top of what flows there already, `surrogate`.

    # Parameters

    instance_loss : `torch.Tensor`
        `(batch,)`.
    scores, surrogate : `torch.Tensor`
        Scores and their surrogate gradient, both `(batch, ...)`.
    """
    # Forbidden scores are -inf, which times 0 would be NaN.
    products = torch.where(surrogate == 0, 0.0, scores * surrogate.detach().to(scores.dtype))
    term = products.flatten(1).sum(-1).to(instance_loss.dtype)
    return instance_loss + (term - term.detach())


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx, value: torch.Tensor, relaxed: torch.Tensor) -> torch.Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> Tuple[None, torch.Tensor]:
        return None, gradient


def straight_through(value: torch.Tensor, relaxed: torch.Tensor) -> torch.Tensor:
    """
    Exactly `value` in the forward pass (not `relaxed + (value - relaxed)`, which rounds), `relaxed` in the
    backward pass. Linear in the gradient, hence independent of the loss's scale.
    """
    return _StraightThrough.apply(value.detach(), relaxed)


class PullBackDiagnostics:
    """
    What a pull-back did, for each instance, in tensors that exist before it has run (NaN until then):

    - `surrogate_nonzero`: whether the scores get any gradient (of a norm above 1e-6);
    - `pull_back_distance`: the Euclidean distance between the starting point and the pulled-back one;
    - `arcs_changed`: the fraction of the starting structure's parts that the pull-back brought to 1/2 or below.
    """

    names = ("surrogate_nonzero", "pull_back_distance", "arcs_changed")

    def __init__(self, scores: torch.Tensor) -> None:
        self.tensors = {name: torch.full((scores.size(0),), torch.nan, device=scores.device) for name in self.names}

    def record(self, start: torch.Tensor, pulled: torch.Tensor, surrogate: torch.Tensor) -> None:
        self.tensors["surrogate_nonzero"].copy_(surrogate.flatten(1).norm(dim=-1) > 1e-6)
        self.tensors["pull_back_distance"].copy_((pulled - start).flatten(1).norm(dim=-1))
        selected = start.flatten(1) > 0.5
        dropped = selected & (pulled.flatten(1) <= 0.5)
        self.tensors["arcs_changed"].copy_(dropped.sum(-1) / selected.sum(-1).clamp(min=1))
