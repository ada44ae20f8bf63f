import math
import random
from collections.abc import Iterable
from typing import Optional, Union

from allennlp.common.checks import ConfigurationError
from allennlp.data import Instance
from allennlp.data.data_loaders.multitask_scheduler import HomogeneousRoundRobinScheduler, MultiTaskScheduler
from allennlp.data.samplers import BucketBatchSampler


@MultiTaskScheduler.register("proportional")
class ProportionalScheduler(HomogeneousRoundRobinScheduler):
    """
    For AllenNLP's `multitask` data loader: batches of one data set each, in random order. A step thus draws from a data
    set in proportion to how much of it is left in the epoch (Peng et al. 2018, section 4.1), where
    `homogeneous_roundrobin` alternates until the smaller one is used up.

    # Parameters

    batch_size : `Union[int, Dict[str, int]]`
        Number of instances of a batch, for all data sets or for each by its name.
    drop_last : `bool`, optional (default = `False`)
        Whether incomplete batches are left out.
    fractions : `Dict[str, float]`, optional (default = `{}`)
        Part of each data set that an epoch takes, by the data set's name, drawn anew for each epoch. Data sets that are
        not named are taken whole.
    sorting_keys : `List[str]`, optional (default = `None`)
        Fields by whose lengths the instances of each data set are grouped into batches, as by AllenNLP's `bucket`
        sampler, so that batches have little padding. `None`: instances stay in the order in which they come.
    padding_noise : `float`, optional (default = `0.1`)
        Noise that sorting adds to lengths, as a fraction of them, so that batches differ between epochs.

    # Errors

    `ConfigurationError` for a fraction that is not above 0 and at most 1.
    """

    def __init__(
        self,
        batch_size: Union[int, dict[str, int]],
        drop_last: bool = False,
        fractions: Optional[dict[str, float]] = None,
        sorting_keys: Optional[list[str]] = None,
        padding_noise: float = 0.1,
    ) -> None:
        super().__init__(batch_size, drop_last)
        self.fractions = fractions or {}
        self.sorting_keys = sorting_keys
        self.padding_noise = padding_noise
        for name, fraction in self.fractions.items():
            if not 0 < fraction <= 1:
                raise ConfigurationError(f"the fraction of '{name}' is {fraction}; valid: a number > 0 and <= 1")

    def batch_instances(self, epoch_instances: dict[str, Iterable[Instance]]) -> Iterable[list[Instance]]:
        taken = dict(epoch_instances)
        for name in self.fractions.keys() & taken.keys():
            instances = list(taken[name])
            taken[name] = random.sample(instances, self._count(name, len(instances)))
        if self.sorting_keys:
            taken = {name: self._by_length(name, list(instances)) for name, instances in taken.items()}
        batches = list(super().batch_instances(taken))
        random.shuffle(batches)
        return batches

    def _by_length(self, name: str, instances: list[Instance]) -> list[Instance]:
        """Batch after batch of instances of similar lengths, an incomplete one last."""
        sampler = BucketBatchSampler(self.batch_size[name], self.sorting_keys, self.padding_noise)
        batches = sorted(sampler.get_batch_indices(instances), key=len, reverse=True)
        return [instances[index] for batch in batches for index in batch]

    def count_batches(self, dataset_counts: dict[str, int]) -> int:
        return super().count_batches({name: self._count(name, count) for name, count in dataset_counts.items()})

    def _count(self, name: str, count: int) -> int:
        return math.ceil(self.fractions.get(name, 1) * count)
