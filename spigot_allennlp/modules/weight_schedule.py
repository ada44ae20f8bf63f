import torch
from allennlp.common import Registrable

from spigot_allennlp.checks import at_least_one, nonnegative


class WeightSchedule(torch.nn.Module, Registrable):
    """
    The weight of a loss as a function of the number of training steps. That number is part of the state dict, so that
    a recovered run goes on where it stopped.
    """

    default_implementation = "constant"

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("step", torch.tensor(0))
        self.step: torch.Tensor

    def forward(self) -> torch.Tensor:
        """
        The weight at the current step, a scalar; in training mode, then moves on by a step.
        """
        weight = self.weight(self.step)
        if self.training:
            self.step += 1
        return weight

    def weight(self, step: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError


@WeightSchedule.register("constant")
class ConstantWeight(WeightSchedule):
    """
    # Parameters

    weight : `float`
        Weight, at least 0.
    """

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.value = nonnegative("weight", weight)

    def weight(self, step: torch.Tensor) -> torch.Tensor:
        return torch.full_like(step, self.value, dtype=torch.float)


@WeightSchedule.register("linear")
class LinearWeight(WeightSchedule):
    """
    From `start` to `end` in equal steps, then constant: for instance, from supervised to purely latent syntax.

    # Parameters

    start, end : `float`
        Weight, at least 0.
    num_steps : `int`
        Training batches between the two.
    """

    def __init__(self, start: float, end: float, num_steps: int) -> None:
        super().__init__()
        self.start = nonnegative("start", start)
        self.end = nonnegative("end", end)
        self.num_steps = at_least_one("num_steps", num_steps)

    def weight(self, step: torch.Tensor) -> torch.Tensor:
        progress = (step.float() / self.num_steps).clamp(max=1.0)
        return self.start + (self.end - self.start) * progress
