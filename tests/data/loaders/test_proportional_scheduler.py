import random
from collections import Counter

import pytest
from allennlp.data import Instance, Token
from allennlp.data.data_loaders.multitask_scheduler import MultiTaskScheduler
from allennlp.data.fields import MetadataField, TextField

from spigot_allennlp.data import ProportionalScheduler

SIZES = {"syntax": 31, "semantics": 9}


def instances() -> dict[str, list[Instance]]:
    return {
        name: [Instance({"metadata": MetadataField((name, i))}) for i in range(size)] for name, size in SIZES.items()
    }


def order(scheduler: ProportionalScheduler) -> list[list[tuple[str, int]]]:
    return [[instance["metadata"].metadata for instance in batch] for batch in scheduler.batch_instances(instances())]


@pytest.mark.parametrize("batch_size", [1, 4, {"syntax": 5, "semantics": 2}])
@pytest.mark.parametrize("drop_last", [False, True])
def test_every_instance_once_in_batches_of_one_set(batch_size, drop_last):
    scheduler = MultiTaskScheduler.by_name("proportional")(batch_size, drop_last)
    batches = order(scheduler)
    assert len(batches) == scheduler.count_batches(SIZES)
    assert all(len({name for name, _ in batch}) == 1 for batch in batches)
    seen = Counter(entry for batch in batches for entry in batch)
    assert set(seen.values()) == {1}
    if not drop_last:
        assert len(seen) == sum(SIZES.values())


def test_in_proportion_to_the_sizes_all_along():
    random.seed(0)
    scheduler = ProportionalScheduler(1)
    first = Counter()
    for _ in range(400):
        first.update([batch[0][0] for batch in order(scheduler)][:2])
    assert first["semantics"] / first.total() == pytest.approx(9 / 40, abs=0.05)
    assert order(scheduler) != order(scheduler)


@pytest.mark.parametrize("drop_last", [False, True])
def test_batches_of_similar_lengths(drop_last):
    sizes = {name: [random.Random(name).randint(1, 60) for _ in range(size)] for name, size in SIZES.items()}
    data = {
        name: [
            Instance({"metadata": MetadataField((name, i)), "tokens": TextField([Token("w")] * length)})
            for i, length in enumerate(lengths)
        ]
        for name, lengths in sizes.items()
    }
    scheduler = ProportionalScheduler({"syntax": 4, "semantics": 2}, drop_last, sorting_keys=["tokens"])
    batches = [
        [(*instance["metadata"].metadata, len(instance["tokens"])) for instance in batch]
        for batch in scheduler.batch_instances(data)
    ]
    assert len(batches) == scheduler.count_batches(SIZES)
    seen = Counter((name, i) for batch in batches for name, i, _ in batch)
    assert set(seen.values()) == {1} and len(seen) == sum(map(len, batches))
    for name, size in (("syntax", 4), ("semantics", 2)):
        whole = [batch for batch in batches if batch[0][0] == name and len(batch) == size]
        assert len(whole) == SIZES[name] // size
        padding = sum(max(length for *_, length in batch) - length for batch in whole for *_, length in batch)
        # Batches in the order of the file have more than ten times that.
        assert padding < 0.15 * sum(length for batch in whole for *_, length in batch)
    assert batches != list(scheduler.batch_instances(data))
