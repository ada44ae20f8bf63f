"""Two workers, of which one has nothing to count: the same numbers on both, and nobody waits for the other."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any, Dict

import pytest
import torch

from spigot_allennlp.metrics import DependencyGraphF1, EnhancedDependencyScores, MaskedMean, TreeScores
from tests.metrics.test_dependency_graph_f1 import FIRST, SECOND, THIRD, tensors
from tests.metrics.test_tree_scores import padded


def count(metrics: Dict[str, Any], part: str) -> None:
    if part == "first":
        metrics["graph"](*tensors([FIRST, SECOND], num_tokens=5))
        metrics["tree"](padded([[2, 0, 2], [0]]), padded([[2, 0, 1], [0]]))
        metrics["edges"]([(1, 2, "nsubj:pass"), (2, 0, "root")], [(1, 2, "nsubj"), (2, 0, "root"), (3, 2, "obj")])
        metrics["mean"](torch.tensor([1.0, 2.0]), torch.tensor([True, True]))
    elif part == "second":
        metrics["graph"](*tensors([THIRD], num_tokens=5))
        metrics["tree"](padded([[0, 1]]), padded([[2, 0]]))
        metrics["edges"]([(1, 0, "root")], [(1, 0, "root")])
        metrics["mean"](torch.tensor([6.0]), torch.tensor([True]))


def new_metrics() -> Dict[str, Any]:
    return {
        "graph": DependencyGraphF1(),
        "edges": EnhancedDependencyScores(),
        "tree": TreeScores(),
        "mean": MaskedMean(),
    }


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2, timeout=timedelta(seconds=60)
    )
    results = []
    metrics = new_metrics()
    for parts in (("first", "nothing"), ("first", "second"), ("nothing", "nothing"), ("nothing", "first")):
        count(metrics, parts[rank])
        if parts == ("first", "second"):
            # A worker may have one batch more than the other.
            count(metrics, "second" if rank == 0 else "nothing")
        results.append({name: metric.get_metric(reset=True) for name, metric in metrics.items()})
    (Path(folder) / f"{rank}.json").write_text(json.dumps(results))
    torch.distributed.destroy_process_group()


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch was built without it")
def test_two_workers(tmp_path: Path):
    # Forked, as starting anew would import everything twice.
    torch.multiprocessing.start_processes(work, args=(str(tmp_path),), nprocs=2, start_method="fork")
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    expected = []
    for parts in (("first",), ("first", "second", "second"), (), ("first",)):
        metrics = new_metrics()
        for part in parts:
            count(metrics, part)
        expected.append({name: metric.get_metric() for name, metric in metrics.items()})
    # Through JSON as well, where NaN is equal to NaN.
    assert json.dumps(first) == json.dumps(second) == json.dumps(expected)
    assert first[1]["mean"] == 15 / 4
