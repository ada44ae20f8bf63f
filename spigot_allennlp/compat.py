"""
The few mends that AllenNLP 2.10.1, its last release, needs on a current torch.

`apply` is called by `import spigot_allennlp`, before the rest of the package is imported. A mend replaces one
function of AllenNLP by one with the same signature, which works on old and new versions of torch alike. What
is silenced is in `THIRD_PARTY_WARNINGS`, and nowhere else but in the filters that
`scripts/install_allennlp.py` sets up for warnings which appear before any plugin is loaded.
"""

import functools
import inspect
import io
import os
import uuid
import warnings
from types import SimpleNamespace
from typing import Any, Callable, Dict, Iterable, Iterator, List, Optional, Tuple, Type, Union
from unittest import mock

import numpy as np
import torch
from allennlp.commands import build_vocab, diff, predict
from allennlp.common import Params, Tqdm, cached_transformers, file_utils
from allennlp.common import util as common_util
from allennlp.common.checks import ConfigurationError
from allennlp.data.data_loaders import multiprocess_data_loader
from allennlp.nn.parallel import ddp_accelerator
from allennlp.training import gradient_descent_trainer
from allennlp.training import util as training_util
from allennlp.training.callbacks import WandBCallback
from allennlp.training.checkpointer import Checkpointer
from allennlp.training.learning_rate_schedulers import ReduceOnPlateauLearningRateScheduler
from allennlp.training.moving_average import MovingAverage

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

_MENDED = "_spigot_allennlp_mended"


def apply() -> None:
    """
    Apply every mend. Calling it again does nothing.
    """
    for message, category, module in THIRD_PARTY_WARNINGS:
        warnings.filterwarnings("ignore", message, category, module)
    _allow_numpy_scalars_in_checkpoints()
    replace(ReduceOnPlateauLearningRateScheduler, "__init__", _reduce_on_plateau)
    for module in (gradient_descent_trainer, training_util, ddp_accelerator):
        replace(module, "clip_grad_norm_", _clip_dense_and_sparse)
    replace(file_utils.TensorCache, "__setitem__", _readable_tensor_cache)
    for name in ("_start_instance_workers", "_start_batch_workers"):
        replace(multiprocess_data_loader.MultiProcessDataLoader, name, _lock_of_the_same_context)
    replace(Checkpointer, "save_checkpoint", _whole_checkpoints)
    replace(Params, "to_file", _whole_config)
    replace(common_util, "dump_metrics", _whole_metrics)
    replace(MovingAverage, "load_state_dict", _averages_of_the_model)
    _expect_unused_parameters()
    replace(WandBCallback, "on_start", _run_id_without_wandb)
    replace(diff, "checkpoint_diff", _differences_of_counters)
    replace(build_vocab, "build_vocab_from_args", _overrides_of_build_vocab)
    replace(predict._PredictManager, "run", _progress_of_silent_predictions)
    replace(predict._PredictManager, "_get_json_data", _utf8_lines)
    replace(cached_transformers, "get_tokenizer", _tokenizer_of_current_transformers)


def replace(owner: Any, name: str, make: Callable[[Callable], Callable]) -> None:
    """
    Puts `make(original)` in the place of the function `owner.name`, once.
    """
    attribute = inspect.getattr_static(owner, name)
    of_class = isinstance(attribute, classmethod)
    original = attribute.__func__ if of_class else attribute
    if not hasattr(original, _MENDED):
        replacement = functools.wraps(original)(make(original))
        setattr(replacement, _MENDED, True)
        setattr(owner, name, classmethod(replacement) if of_class else replacement)


def _allow_numpy_scalars_in_checkpoints() -> None:
    """
    `train --recover` reads the training state with `torch.load`, which since torch 2.6 refuses every class
    that is not on its list. NumPy's scalars are not, and get into the training state through learning rates
    (the `cosine` scheduler computes them with NumPy) and through metrics. They are plain numbers: allowing
    them, instead of switching the check off, keeps a checkpoint from elsewhere unable to run code.
    """
    if torch.__version__ < (2, 6):
        return
    scalar = np.float64(0.0).__reduce__()[0]
    numeric = np.typecodes["AllInteger"] + np.typecodes["Float"] + "?"
    allowed: List[Any] = [np.dtype, *{type(np.dtype(code)) for code in numeric}]
    # The same function has one name in files written with NumPy 1 and another in those written with NumPy 2.
    allowed += [(scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    torch.serialization.add_safe_globals(allowed)


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
    `dense_sparse_adam`). The norm of a coalesced sparse gradient is that of its values, and scaling them
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
    `TensorCache` writes with the newest pickle protocol, of which `torch.load` since torch 2.6 reads nothing
    above 3. torch's default protocol is read by every version.
    """

    def __setitem__(self: file_utils.TensorCache, key: str, tensor: torch.Tensor) -> None:
        if self.read_only:
            raise ValueError("cannot write to a read-only cache")
        tensor = tensor.cpu()
        buffer = io.BytesIO()
        # Cloned, because a view would be written with the whole storage behind it.
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


def save_atomically(content: Any, path: str) -> None:
    """
    `torch.save`, but at every moment, also that of a power failure, there is the old file or the new one, and whole.
    """
    with open(f"{path}.part", "wb") as file:
        torch.save(content, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(f"{path}.part", path)


def _whole_checkpoints(original: Callable) -> Callable:
    """
    The checkpointer writes a checkpoint's two files in place, and that of the weights, by which it finds checkpoints,
    first. A run that is killed meanwhile leaves something that cannot be resumed from and that is never written again,
    whatever older checkpoints there are. Here the weights come last, and each file at once.
    """

    def save_checkpoint(self: Checkpointer, trainer: Any) -> None:
        state = trainer.get_checkpoint_state()
        if self._serialization_dir is not None and state is not None:
            when = state.trainer_state["epochs_completed"], state.trainer_state["batches_in_epoch_completed"]
            save_atomically(state.trainer_state, self._training_state_path(*when))
            save_atomically(state.model_state, self._model_state_path(*when))
        # It does not write what is there, and sees to all else, such as removing old checkpoints.
        original(self, SimpleNamespace(get_checkpoint_state=lambda: state))

    return save_checkpoint


def _whole_config(original: Callable) -> Callable:
    """
    A run that is killed while it writes its configuration, the first of its files, would leave half a `config.json`,
    and could be neither recovered nor started anew.
    """

    def to_file(self: Params, params_file: str, preference_orders: Any = None) -> None:
        original(self, f"{params_file}.part", preference_orders)
        os.replace(f"{params_file}.part", params_file)

    return to_file


def _whole_metrics(original: Callable) -> Callable:
    """
    Nor may a run that is killed while it writes the metrics of an epoch leave a file that nobody can read.
    """

    def dump_metrics(file_path: Optional[str], metrics: Dict[str, Any], log: bool = False) -> None:
        original(file_path and f"{file_path}.part", metrics, log)
        if file_path:
            os.replace(f"{file_path}.part", file_path)

    return dump_metrics


def _averages_of_the_model(original: Callable) -> Callable:
    """
    A recovered moving average took the parameters from the checkpoint for those of the model: it averaged, and assigned
    its averages to, tensors that nobody uses.
    """

    def load_state_dict(self: MovingAverage, state_dict: Dict[str, Any]) -> None:
        for name, _ in self._parameters:
            self._shadows[name].copy_(state_dict["shadows"][name])
            self._backups[name].copy_(state_dict["backups"][name])

    return load_state_dict


def _expect_unused_parameters() -> None:
    """
    Where the batch of one worker has no gold trees, or no arcs, or the weight of a loss is 0, some parameters get no
    gradient, for which torch's data-parallel wrapper waits unless told to look for them. Here that is the default of
    the `ddp_accelerator` that AllenNLP takes where a configuration names none.
    """
    ddp_accelerator.TorchDdpAccelerator.__init__.__kwdefaults__["find_unused_parameters"] = True


def _run_id_without_wandb(original: Callable) -> Callable:
    """
    AllenNLP has the name of a run made by `wandb.util.generate_id`, which newer versions of wandb lack. AllenNLP must
    know the name: a recovered run goes on under it.
    """

    def on_start(self: WandBCallback, *args: Any, **kwargs: Any) -> None:
        if self._run_id is None:
            self._run_id = uuid.uuid4().hex[:8]
        original(self, *args, **kwargs)

    return on_start


def _differences_of_counters(original: Callable) -> Callable:
    """
    `allennlp diff` takes mean squares, which torch has for floating-point numbers only; counters, of batches for
    example, are integers.
    """

    def checkpoint_diff(state_dict_a: Dict[str, Any], state_dict_b: Dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        floats = (
            {name: value if value.is_floating_point() else value.double() for name, value in state_dict.items()}
            for state_dict in (state_dict_a, state_dict_b)
        )
        return original(*floats, *args, **kwargs)

    return checkpoint_diff


def _overrides_of_build_vocab(original: Callable) -> Callable:
    """
    `allennlp build-vocab` accepts `-o` and forgets it.
    """

    def build_vocab_from_args(args: Any) -> None:
        read = functools.partial(Params.from_file, params_overrides=args.overrides)
        with mock.patch.object(build_vocab, "Params", SimpleNamespace(from_file=read)):
            original(args)

    return build_vocab_from_args


def _utf8_lines(original: Callable) -> Callable:
    """Of input in another encoding, `allennlp predict` says where it does not decode, but not that it is the input."""

    def _get_json_data(self: Any) -> Iterator[Any]:
        try:
            yield from original(self)
        except UnicodeDecodeError as error:
            raise ConfigurationError(f"{self._input_file}: the input is not valid UTF-8 ({error})") from None

    return _get_json_data


def _tokenizer_of_current_transformers(original: Callable) -> Callable:
    """
    AllenNLP loads its tokenizers with `add_special_tokens`, which current versions of transformers refuse there. It
    says so again wherever it calls them, which is where it counts.
    """

    def get_tokenizer(model_name: str, **kwargs: Any) -> Any:
        kwargs.pop("add_special_tokens", None)
        return original(model_name, **kwargs)

    return get_tokenizer


def _progress_of_silent_predictions(original: Callable) -> Callable:
    """
    `allennlp predict --silent` shows nothing for as long as it takes. (Otherwise predictions are printed.)
    """

    def run(self: Any) -> None:
        if not self._print_to_console:
            for name in ("_get_json_data", "_get_instance_data"):
                inputs = getattr(self, name)
                bar = functools.partial(Tqdm.tqdm, desc="predicting", unit=" inputs", delay=2)
                setattr(self, name, lambda inputs=inputs, bar=bar: bar(inputs()))
        original(self)

    return run
