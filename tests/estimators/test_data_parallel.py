"""Two workers with half a batch each against one with the whole: the surrogate does not see the difference."""

from pathlib import Path
from typing import Any

import pytest
import torch
from allennlp.common import Params

from spigot_allennlp.estimators import Estimator
from tests.estimators.estimator_test_case import Problem, problem

ESTIMATORS = [
    {"type": "ste"},
    {"type": "spigot"},
    {"type": "spigot", "num_steps": 2},
    {"type": "spigot_ce"},
    {"type": "marginals"},
]


class Parser(torch.nn.Module):
    """A scorer with parameters, an estimator, and a downstream model with parameters."""

    def __init__(self, given: Problem, params: dict[str, Any]) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(given.scores.shape[1:], dtype=torch.float64))
        self.downstream = given.downstream
        self.estimator = Estimator.from_params(Params(dict(params)))

    def forward(self, given: Problem) -> torch.Tensor:
        output = self.estimator(given.scores * self.weight, given.mask, given.structure, given.downstream)
        return output.instance_loss.mean()


def gradients(model: torch.nn.Module) -> list[torch.Tensor]:
    return [p.grad for _, p in sorted(model.named_parameters())]


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    results = []
    for params in ESTIMATORS:
        half = problem("projective_tree").on(slice(2 * rank, 2 * rank + 2))
        model = torch.nn.parallel.DistributedDataParallel(Parser(half, params))
        model(half).backward()
        results.append(gradients(model.module))
    if rank == 0:
        torch.save(results, Path(folder) / "gradients.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch was built without it")
def test_two_workers_learn_what_one_learns(tmp_path):
    torch.multiprocessing.spawn(work, args=(str(tmp_path),), nprocs=2)
    found = torch.load(tmp_path / "gradients.pt")
    for params, two in zip(ESTIMATORS, found, strict=True):
        whole = problem("projective_tree")
        model = Parser(whole, params)
        model(whole).backward()
        for first, second in zip(two, gradients(model), strict=True):
            torch.testing.assert_close(first, second, rtol=1e-6, atol=1e-9)
