"""The V-measure, against scikit-learn's."""

from datetime import timedelta
from pathlib import Path

import pytest
import torch
from allennlp.common.checks import ConfigurationError
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import v_measure_score

from spigot_allennlp.metrics import VMeasure

PAIRS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 4)), min_size=1, max_size=40)


def v_measure(pairs, *more) -> float:
    metric = VMeasure()
    for part in (pairs, *more):
        metric(*torch.tensor(part, dtype=torch.long).view(-1, 2).unbind(-1))
    return metric.get_metric()


def expected(pairs) -> float:
    return v_measure_score(labels_true=[gold for _, gold in pairs], labels_pred=[predicted for predicted, _ in pairs])


@given(PAIRS)
def test_as_scikit_learn(pairs):
    assert v_measure(pairs) == pytest.approx(expected(pairs), abs=1e-9)


@given(PAIRS, PAIRS)
def test_batches_add_up(first, second):
    # Each may show clusters that the other does not.
    assert v_measure(first, [], second) == pytest.approx(expected(first + second), abs=1e-9)


@given(PAIRS, st.permutations(range(6)))
def test_numbering_does_not_matter(pairs, permutation):
    renumbered = [(permutation[predicted], gold) for predicted, gold in pairs]
    assert v_measure(renumbered) == pytest.approx(v_measure(pairs), abs=1e-9)


def test_extremes():
    assert v_measure([(2, 0), (0, 1), (2, 0), (0, 1)]) == 1.0
    assert v_measure([(0, 0), (0, 1), (0, 2)]) == 0.0
    assert v_measure([(0, 0), (0, 1), (1, 0), (1, 1)]) == pytest.approx(0.0, abs=1e-12)


def test_mask_and_reset():
    metric = VMeasure()
    predicted, gold = torch.tensor([[0, 1], [1, 7]]), torch.tensor([[0, 1], [1, 0]])
    metric(predicted, gold, torch.tensor([[True, True], [True, False]]))
    assert metric.get_metric(reset=True) == 1.0
    # Nothing left of the eighth cluster, nor of anything.
    assert metric.get_metric() == 0.0
    metric(predicted, gold)
    assert 0 < metric.get_metric() < 1


def test_errors():
    metric = VMeasure()
    with pytest.raises(ConfigurationError, match=r"\(3,\).*\(2,\)"):
        metric(torch.zeros(3), torch.zeros(2))
    with pytest.raises(ConfigurationError, match="negative"):
        metric(torch.tensor([0]), torch.tensor([-1]))


FIRST, SECOND = [(0, 0), (0, 0), (1, 2)], [(4, 1), (0, 1), (4, 1), (1, 0)]


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2, timeout=timedelta(seconds=60)
    )
    with_both = v_measure((FIRST, SECOND)[rank])
    with_one = v_measure((FIRST, [])[rank])
    (Path(folder) / f"{rank}").write_text(f"{with_both} {with_one}")
    torch.distributed.destroy_process_group()


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch was built without it")
def test_two_workers(tmp_path: Path):
    # Forked, as starting anew would import everything twice.
    torch.multiprocessing.start_processes(work, args=(str(tmp_path),), nprocs=2, start_method="fork")
    for rank in range(2):
        with_both, with_one = map(float, (tmp_path / f"{rank}").read_text().split())
        assert with_both == pytest.approx(expected(FIRST + SECOND), abs=1e-9)
        assert with_one == pytest.approx(expected(FIRST), abs=1e-9)
