import multiprocessing
import os
import threading
from collections.abc import Iterable, Iterator
from functools import wraps
from multiprocessing.connection import wait
from typing import Any, Dict, Optional, Tuple

import torch
from allennlp.common.util import is_distributed
from allennlp.data import DataLoader, TensorDict
from allennlp.nn.parallel import DdpAccelerator, TorchDdpAccelerator
from allennlp.training import GradientDescentTrainer
from allennlp.training.metrics import Metric

from spigot_allennlp.metrics import ReducedOnce


class DistributedTrainer(GradientDescentTrainer):
    """
    AllenNLP's `GradientDescentTrainer`, with workers that may have different numbers of batches. Each of `W` workers
    reads every `W`-th instance, so that the last batches are often not there on all of them.

    - Validation leaves out none, where AllenNLP drops the batches that not all workers have: the metrics count all of
      one worker, whatever the number of instances. (`loss` is the mean over *batches*, as with one worker.) That takes
      metrics which are `ReducedOnce`, as all of this package are; a model with others is validated as AllenNLP does it.
    - An epoch of training ends for all workers before the first batch that one of them lacks, also in the middle of an
      accumulated step, where AllenNLP's workers wait for each other for ever.
    - Every worker draws noise and samples of its own (dropout, too). AllenNLP's, seeded alike, all draw the same.
    - Where the batch of one worker has no gold trees, or no arcs, or the weight of a loss is 0, some parameters get no
      gradient, for which torch's data-parallel wrapper would wait for ever: `find_unused_parameters` is true, unless
      the config has a `ddp_accelerator`.
    - Workers end when the process that started them ends, however that is killed. AllenNLP's train on.
    """

    @classmethod
    @wraps(GradientDescentTrainer.from_partial_objects.__func__)
    def from_partial_objects(
        cls,
        *args: Any,
        distributed: bool = False,
        cuda_device: Any = None,
        ddp_accelerator: Optional[DdpAccelerator] = None,
        **kwargs: Any,
    ) -> "DistributedTrainer":
        if distributed and ddp_accelerator is None:
            ddp_accelerator = TorchDdpAccelerator(find_unused_parameters=True, cuda_device=cuda_device)
        others = {"distributed": distributed, "cuda_device": cuda_device, "ddp_accelerator": ddp_accelerator}
        return super().from_partial_objects(*args, **kwargs, **others)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self._distributed and is_distributed():
            _end_with_parent()
            torch.manual_seed(torch.initial_seed() + torch.distributed.get_rank())

    def batch_outputs(self, batch: TensorDict, for_training: bool) -> Dict[str, torch.Tensor]:
        # An empty one keeps a worker in step that has none left.
        return super().batch_outputs(batch, for_training) if batch else {}

    def _train_epoch(self, epoch: int) -> Dict[str, float]:
        if not self._distributed:
            return super()._train_epoch(epoch)
        loader = self.data_loader
        self.data_loader = _InStep(loader, self.cuda_device, at_least=self._world_size)
        try:
            return super()._train_epoch(epoch)
        finally:
            self.data_loader = loader

    def _validation_loss(self, epoch: int) -> Tuple[float, Optional[float], int]:
        wrapped = self._ddp_wrapped_model
        if wrapped is None or wrapped.is_sharded or not self._metrics_are_reduced_once():
            return super()._validation_loss(epoch)
        # What the wrapper does in a forward pass, all workers have to do.
        for buffer in self.model.buffers():
            torch.distributed.broadcast(buffer, 0)
        loader = self._validation_data_loader
        self._ddp_wrapped_model = None
        self._validation_data_loader = _InStep(loader, self.cuda_device, at_least=1)
        try:
            return super()._validation_loss(epoch)
        finally:
            self._ddp_wrapped_model, self._validation_data_loader = wrapped, loader

    def _metrics_are_reduced_once(self) -> bool:
        return all(
            isinstance(metric, ReducedOnce)
            for module in self.model.modules()
            for _, metric in metrics_in("", vars(module))
        )


def _end_with_parent() -> None:
    """torch asks for an interrupt, which a worker of a background command ignores."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        # Other children of the parent may hold what its sentinel waits for.
        while os.getppid() == parent.pid and not wait([parent.sentinel], timeout=1):
            pass
        os._exit(1)

    threading.Thread(target=watch, name="end with parent", daemon=True).start()


class _InStep:
    """
    The batches of a worker, while `at_least` so many workers have one; where this worker has none left, empty ones.
    """

    def __init__(self, loader: DataLoader, device: torch.device, at_least: int) -> None:
        self._loader = loader
        self._device = device
        self._at_least = at_least

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[TensorDict]:
        batches = iter(self._loader)
        while True:
            batch: TensorDict = next(batches, {})
            # An integer: NCCL knows no booleans.
            workers = torch.tensor(int(bool(batch)), device=self._device)
            torch.distributed.all_reduce(workers)
            if workers < self._at_least:
                return
            yield batch


def metrics_in(path: str, value: Any) -> Iterator[Tuple[str, Metric]]:
    """The metrics in a dictionary, a list or another metric, at any depth, each with a name of its own."""
    items: Iterable[Tuple[Any, Any]] = ()
    if isinstance(value, Metric):
        yield path, value
        items = vars(value).items()
    elif isinstance(value, dict):
        items = value.items()
    elif isinstance(value, (list, tuple)):
        items = enumerate(value)
    for name, part in items:
        if isinstance(part, (Metric, dict, list, tuple)):
            yield from metrics_in(f"{path}.{name}", part)
