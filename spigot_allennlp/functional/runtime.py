"""
How compiled kernels run: compilation and its cache, threads, and the way between torch and NumPy.

Every kernel of `spigot_allennlp.functional` is compiled by numba on its first use and cached on disk.
"""

import builtins
import dis
import hashlib
import logging
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, Callable, Dict, Iterator, Optional, Tuple

import numba
import numpy as np
import torch
from numba.core import event

logger = logging.getLogger(__name__)

# Stands for -inf inside kernels. Sums of a few hundred of them stay finite in float32, so that no kernel ever
# computes inf - inf; the exponential of any difference to a finite score is exactly 0.
FORBIDDEN = -1e30

# No "nnan" and no "ninf": LLVM may then delete the comparisons by which kernels recognize forbidden parts. What is
# left is what lets it vectorize sums.
_FASTMATH = {"nsz", "arcp", "contract", "reassoc"}


class _CompilationNotice(event.Listener):
    """
    Says once, when a kernel is really compiled (and not loaded from the cache), why the program waits.
    """

    def __init__(self) -> None:
        self._said = False

    def on_start(self, event: Any) -> None:
        if not self._said and str(event.data["dispatcher"].py_func.__module__).startswith("spigot_allennlp."):
            self._said = True
            cached = "" if _warn_of_no_cache.cache_info().currsize else ": once per machine, cached on disk afterwards"
            logger.warning(f"Compiling the structured-inference kernels{cached}.")

    def on_end(self, event: Any) -> None:
        pass


event.register("numba:compile", _CompilationNotice())


def _globals_of(code: CodeType) -> Iterator[str]:
    """The global names that a function reads."""
    for instruction in dis.get_instructions(code):
        if instruction.opname == "LOAD_GLOBAL":
            yield instruction.argval
        elif isinstance(instruction.argval, CodeType):
            yield from _globals_of(instruction.argval)


@lru_cache(maxsize=None)
def _file_of(module: str) -> bytes:
    path = getattr(sys.modules.get(module), "__file__", None)
    return Path(path).read_bytes() if path else b""


def _add_inputs(function: Callable, inputs: Dict[str, bytes]) -> None:
    """
    Adds all that is compiled into a function from outside: the files of the functions that it calls, of those that
    these call, and so on, and the constants that any of them uses.
    """
    for name in _globals_of(function.__code__):
        if name in function.__globals__:
            _add_input(f"{function.__module__}.{name}", function.__globals__[name], function.__code__, inputs)
        elif not hasattr(builtins, name):
            raise NameError(
                f"the kernel '{function.__qualname__}' uses '{name}', which is not defined yet; valid: kernels that "
                "are defined after all that they call"
            )


def _add_input(key: str, value: Any, user: CodeType, inputs: Dict[str, bytes]) -> None:
    if key in inputs:
        return
    if isinstance(value, ModuleType):
        for attribute in vars(value).keys() & set(user.co_names):
            _add_input(f"{key}.{attribute}", getattr(value, attribute), user, inputs)
    elif isinstance(value, (np.ndarray, np.generic)):
        inputs[key] = value.tobytes()
    elif hasattr(value, "__module__"):
        inputs[key] = _file_of(value.__module__)
        if hasattr(value, "py_func"):
            _add_inputs(value.py_func, inputs)
    else:
        inputs[key] = repr(value).encode()


def _fingerprint(function: Callable, options: Dict[str, Any]) -> str:
    """
    Part of the name under which a kernel is cached: numba looks for changes in the kernel's own file only, and would
    go on using kernels into which it has compiled what has changed elsewhere.
    """
    inputs = {"runtime": _file_of(__name__), "options": repr(sorted(options.items())).encode()}
    _add_inputs(function, inputs)
    return hashlib.sha256(b"\0".join(key.encode() + b"\0" + inputs[key] for key in sorted(inputs))).hexdigest()[:8]


def kernel(function: Optional[Callable] = None, *, fastmath: Any = None, **options: Any) -> Callable:
    """
    Compile a function with numba: without the interpreter lock, so that `parallel_for` can run it in threads, and
    with a cache on disk, which numba writes by renaming finished files, so that several workers may start at once.

    What a kernel calls has to be defined before it, so that an edit there, in whichever file, recompiles the kernel.

    # Parameters

    fastmath : `set` or `bool`, optional (default = re-association without assumptions on NaN and infinity)
        Given `True`, the compiler also assumes that no value is NaN or infinite: kernels whose inputs are
        clamped to `FORBIDDEN` may say so, and their `max` is then vectorized.

    # Errors

    `NameError` for a kernel that uses what is not defined yet.
    """

    def compile_lazily(python_function: Callable) -> Callable:
        flags = _FASTMATH if fastmath is None else fastmath
        settings = {**options, "fastmath": flags if isinstance(flags, bool) else sorted(flags)}
        python_function.__qualname__ += f"_{_fingerprint(python_function, settings)}"
        compiled = numba.njit(nogil=True, error_model="numpy", fastmath=flags, **options)(python_function)
        _enable_cache(compiled)
        return compiled

    return compile_lazily if function is None else compile_lazily(function)


def _enable_cache(compiled: Any) -> None:
    try:
        compiled.enable_caching()
    except RuntimeError as error:
        if "no locator available" not in str(error):
            raise
        _warn_of_no_cache()


@lru_cache(maxsize=None)
def _warn_of_no_cache() -> None:
    """Once."""
    logger.warning(
        "No directory for a cache of compiled kernels can be written: every program compiles those that it needs, "
        "about a minute for all. The environment variable NUMBA_CACHE_DIR names another directory."
    )


_executor: Optional[Tuple[int, int, ThreadPoolExecutor]] = None


def _threads(number: int) -> ThreadPoolExecutor:
    """The one pool, made anew in a forked process (threads do not survive a fork) or when the size changes."""
    global _executor
    key = (os.getpid(), number)
    if _executor is None or _executor[:2] != key:
        _executor = (*key, ThreadPoolExecutor(number, thread_name_prefix="spigot_allennlp"))
    return _executor[2]


def parallel_for(function: Callable[[int, int], Any], num_items: int) -> None:
    """
    Run `function(start, stop)` over a partition of `range(num_items)`, on at most `torch.get_num_threads()` threads.

    Plain threads around kernels that release the interpreter lock, rather than numba's own parallel loops: a
    second spinning pool beside torch's OpenMP threads slows both down by orders of magnitude on few cores.
    """
    workers = min(torch.get_num_threads(), num_items)
    if workers <= 1:
        if num_items:
            function(0, num_items)
        return
    bounds = np.linspace(0, num_items, workers + 1).astype(int)
    pool = _threads(workers)
    futures = [pool.submit(function, int(a), int(b)) for a, b in zip(bounds[:-2], bounds[1:-1])]
    function(int(bounds[-2]), int(bounds[-1]))
    for future in futures:
        future.result()


# From and to a GPU all goes through page-locked memory, which torch keeps for the next time: several times as fast as
# from and to memory that the driver has to copy once more.


def to_numpy(tensor: torch.Tensor) -> np.ndarray:
    """
    The tensor's values as a contiguous array on the CPU; shares memory where it can, so kernels only read it. Waits for
    a GPU to finish what is queued on the current stream before it.
    """
    tensor = tensor.detach()
    if tensor.device.type == "cuda":
        host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        host.copy_(tensor, non_blocking=True)
        torch.cuda.current_stream(tensor.device).synchronize()
        return host.numpy()
    return tensor.cpu().contiguous().numpy()


def from_numpy(array: np.ndarray, like: torch.Tensor, dtype: Optional[torch.dtype] = None) -> torch.Tensor:
    """
    The array as a tensor on the device of `like`, in `dtype` or the array's own type. A GPU copies it when the current
    stream gets there; no thread waits.
    """
    tensor = torch.from_numpy(array).to(dtype=dtype)
    if like.device.type == "cuda":
        return tensor.pin_memory().to(like.device, non_blocking=True)
    return tensor.to(like.device)
