from collections.abc import Iterator
from typing import Optional

import torch
from allennlp.common.checks import ConfigurationError
from allennlp.data import Batch, DataLoader, DatasetReader, Instance, TensorDict, Vocabulary
from allennlp.nn.util import move_to_device

from spigot_allennlp.checks import at_least_one


@DataLoader.register("full_batch")
class FullBatchDataLoader(DataLoader):
    """
    Gives all instances as one batch, over and over. Its tensors are made once, and stay on the model's device;
    AllenNLP's own loaders would make them anew for every update, which takes longer than an update of a small model.

    # Parameters

    reader : `DatasetReader`
        Reader of the data.
    data_path : `str`
        Path of the data.
    batches_per_epoch : `int`, optional (default = `1`)
        Number of times that the batch comes in an epoch. Validation and checkpoints come once in so many updates.


    # Errors

    `ConfigurationError` for `batches_per_epoch` below 1 and where there are no instances.
    """

    def __init__(self, reader: DatasetReader, data_path: str, batches_per_epoch: int = 1) -> None:
        self.batches_per_epoch = at_least_one("batches_per_epoch", batches_per_epoch)
        self._instances = list(reader.read(data_path))
        if not self._instances:
            raise ConfigurationError(f"{data_path}: no instances")
        self._device: Optional[torch.device] = None
        self._tensors: Optional[TensorDict] = None

    def __len__(self) -> int:
        return self.batches_per_epoch

    def __iter__(self) -> Iterator[TensorDict]:
        if self._tensors is None:
            tensors = Batch(self._instances).as_tensor_dict()
            self._tensors = tensors if self._device is None else move_to_device(tensors, self._device)
        for _ in range(self.batches_per_epoch):
            # A dictionary of its own, so that taking an entry out takes it out of this batch only.
            yield dict(self._tensors)

    def iter_instances(self) -> Iterator[Instance]:
        yield from self._instances

    def index_with(self, vocab: Vocabulary) -> None:
        self._tensors = None
        for instance in self._instances:
            instance.index_fields(vocab)

    def set_target_device(self, device: torch.device) -> None:
        self._device, self._tensors = device, None
