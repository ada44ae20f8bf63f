"""What has no further derivatives says so."""

from typing import Callable

import pytest
import torch

from spigot_allennlp.estimators import Spigot
from spigot_allennlp.structures import NonprojectiveTree, ProjectiveTree, SingleHead

MASK = torch.ones(2, 4, dtype=torch.bool)


def gradient(function: Callable[[torch.Tensor], torch.Tensor], create_graph: bool = True) -> torch.Tensor:
    scores = torch.randn(2, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    (first,) = torch.autograd.grad(function(scores).sum(), scores, create_graph=create_graph)
    if create_graph:
        (second,) = torch.autograd.grad(first.square().sum(), scores)
        return second
    return first


def of_estimator(scores: torch.Tensor) -> torch.Tensor:
    weights = torch.arange(16.0, dtype=torch.float64).view(4, 4)
    output = Spigot()(scores, MASK, ProjectiveTree(), lambda z: {"instance_loss": (z * weights).sum((1, 2))})
    return output.instance_loss


@pytest.mark.parametrize("tree", [ProjectiveTree, NonprojectiveTree])
def test_marginals_of_trees(tree: type):
    with pytest.raises(RuntimeError, match="these marginals can be differentiated once"):
        gradient(lambda scores: tree().marginals(scores, MASK).square())
    # The gradient of a log-partition is once more differentiable.
    assert gradient(lambda scores: tree().log_partition(scores, MASK)).abs().sum() > 0
    assert gradient(lambda scores: SingleHead().marginals(scores, MASK).square()).abs().sum() > 0


def test_a_surrogate():
    with pytest.raises(RuntimeError, match="a surrogate gradient is not the derivative of a loss"):
        gradient(of_estimator)
    assert gradient(of_estimator, create_graph=False).abs().sum() > 0


@pytest.mark.parametrize("transform", ["vmap", "grad"])
def test_transforms_of_functions(transform: str):
    def function(scores: torch.Tensor) -> torch.Tensor:
        return ProjectiveTree().log_partition(scores.view(-1, 4, 4), MASK[:1]).sum()

    with pytest.raises(RuntimeError, match=r"do not work inside torch\.func\.vmap"):
        getattr(torch.func, transform)(function)(torch.zeros(1, 4, 4))
