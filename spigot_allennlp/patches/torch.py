"""
What newer versions of torch and of Python broke in AllenNLP 2.10.1.
"""

import inspect
import io
import warnings
from typing import Any, Callable, Iterable, Tuple, Type, Union
from unittest import mock

import torch
from allennlp.common import file_utils
from allennlp.data.data_loaders import multiprocess_data_loader
from allennlp.nn.parallel import ddp_accelerator
from allennlp.training import gradient_descent_trainer
from allennlp.training import util as training_util
from allennlp.training.learning_rate_schedulers import ReduceOnPlateauLearningRateScheduler

from spigot_allennlp.patches.replacement import replace

# (message, category, module), as for `warnings.filterwarnings`: all from code of others that we can neither
# change nor call in another way. Both parts are always given, so that the same message from elsewhere is
# still seen.
THIRD_PARTY_WARNINGS: Tuple[Tuple[str, Type[Warning], str], ...] = (
    # The trainer calls torch's mixed precision by its old name, also where it is off.
    (
        r"`torch\.cuda\.amp\.(autocast|GradScaler)\(args\.\.\.\)` is deprecated",
        FutureWarning,
        r"allennlp\.training\.gradient_descent_trainer",
    ),
)


def apply() -> None:
    """
    Apply every patch of this file. Calling it again does nothing.
    """
    for message, category, module in THIRD_PARTY_WARNINGS:
        warnings.filterwarnings("ignore", message, category, module)
    replace(ReduceOnPlateauLearningRateScheduler, "__init__", _reduce_on_plateau)
    for module in (gradient_descent_trainer, training_util, ddp_accelerator):
        replace(module, "clip_grad_norm_", _clip_dense_and_sparse)
    replace(file_utils.TensorCache, "__setitem__", _readable_tensor_cache)
    for name in ("_start_instance_workers", "_start_batch_workers"):
        replace(multiprocess_data_loader.MultiProcessDataLoader, name, _lock_of_the_same_context)


def _reduce_on_plateau(original: Callable) -> Callable:
    """
    torch's `ReduceLROnPlateau` has lost the `verbose` argument, which AllenNLP always passes. Configs may go
    on saying `verbose`; the learning rate is among the trainer's logged values either way.
    """

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        arguments = inspect.signature(original).bind(self, *args, **kwargs).arguments
        arguments.pop("self")
        arguments.pop("verbose", None)
        self.lr_scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(**arguments)

    return __init__


def _clip_dense_and_sparse(original: Callable) -> Callable:
    """
    torch's own clipping has no kernel for sparse gradients any more (`sparse: true` embeddings,
    `dense_sparse_adam`). The norm of a coalesced sparse gradient is the norm of its values, and scaling them
    scales it.
    """

    def clip_grad_norm_(
        parameters: Union[torch.Tensor, Iterable[torch.Tensor]], max_norm: float, *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        clipped = []
        for parameter in [parameters] if isinstance(parameters, torch.Tensor) else parameters:
            if parameter.grad is not None and parameter.grad.is_sparse:
                parameter.grad = parameter.grad.coalesce()
                # Stands in for the parameter: `values()` is a view, so that clipping it clips the gradient.
                values = parameter.grad.values()
                parameter = torch.empty_like(values)
                parameter.grad = values
            clipped.append(parameter)
        return original(clipped, max_norm, *args, **kwargs)

    return clip_grad_norm_


def _readable_tensor_cache(original: Callable) -> Callable:
    """
    `TensorCache` writes with the newest pickle protocol, which `torch.load` since torch 2.6 does not read
    above 3. torch's default protocol is read by every version.
    """

    def __setitem__(self: file_utils.TensorCache, key: str, tensor: torch.Tensor) -> None:
        if self.read_only:
            raise ValueError("cannot write to a read-only cache")
        tensor = tensor.cpu()
        buffer = io.BytesIO()
        # Cloned, because a view would be written with its whole storage.
        torch.save(tensor.detach().clone(), buffer)
        with self.lmdb_env.begin(write=True) as transaction:
            transaction.put(key.encode(), buffer.getbuffer())
        self.cache_cache[key] = tensor

    return __setitem__


def _lock_of_the_same_context(original: Callable) -> Callable:
    """
    The data loader gives its workers a lock made by the default start method, which newer Pythons refuse to
    hand to workers started with another one (`start_method: "spawn"`).
    """

    def start_workers(self: Any, queue: Any, ctx: Any) -> Any:
        with mock.patch.object(multiprocess_data_loader.mp, "RLock", ctx.RLock):
            return original(self, queue, ctx)

    return start_workers
