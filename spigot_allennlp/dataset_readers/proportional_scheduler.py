import random
from collections.abc import Iterable

from allennlp.data import Instance
from allennlp.data.data_loaders.multitask_scheduler import HomogeneousRoundRobinScheduler, MultiTaskScheduler


@MultiTaskScheduler.register("proportional")
class ProportionalScheduler(HomogeneousRoundRobinScheduler):
    """
    For AllenNLP's `multitask` data loader: batches of one data set each, in random order. A step thus draws from a data
    set in proportion to how much of it is left in the epoch (Peng et al. 2018, section 4.1), where
    `homogeneous_roundrobin` alternates until the smaller one is used up.

    # Parameters

    batch_size : `Union[int, Dict[str, int]]`
        For all data sets, or for each by its name.
    drop_last : `bool`, optional (default = `False`)
        Whether to leave out what is less than a batch.
    """

    def batch_instances(self, epoch_instances: dict[str, Iterable[Instance]]) -> Iterable[list[Instance]]:
        batches = list(super().batch_instances(epoch_instances))
        random.shuffle(batches)
        return batches
