"""
Lets AllenNLP 2.10.1 be imported without torchvision and fairscale, and on current versions of transformers and
huggingface_hub, and makes its commands find this package.

AllenNLP imports those packages before it loads any plugin, so `import spigot_allennlp` would come too late. Python runs
this module at start-up instead, through `spigot_allennlp.pth`. It then only registers a finder: nothing is imported
until AllenNLP is. A module of AllenNLP that lacks a package is executed with a stand-in for it, and nothing else in the
process ever sees the stand-in. What is installed is used as it is.
"""

import importlib
import importlib.machinery
import sys
import warnings
from contextlib import contextmanager
from types import ModuleType
from typing import Any, Callable, ContextManager, Dict, Iterator, Optional


class _AbsentMeta(type):
    """
    The type of every name in an absent package: it can be imported and subclassed, and says what is missing once it is
    called or looked into.
    """

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise ImportError(cls._message)

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        raise ImportError(cls._message)


class _AbsentModule(ModuleType):
    """
    Stands for a package that is not installed, or for one of its modules.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__path__: list = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        package = self.__name__.partition(".")[0]
        message = f"this part of AllenNLP needs {package}, which is not installed: pip install {package}"
        return _AbsentMeta(name, (), {"_message": message})


def _importable(package: str) -> bool:
    try:
        importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name == package:
            return False
        raise
    except Exception as error:
        # Built for another torch, it may raise whatever it comes across.
        raise ImportError(
            f"{package} is installed, but cannot be imported beside this torch ({error}). AllenNLP works without it: "
            f"pip uninstall {package}. Or install the version that was built for this torch"
        ) from error
    return True


def _without(*modules: str) -> Callable[[ModuleType], ContextManager]:
    """
    The context in which stand-ins for `modules`, all of one package, are in `sys.modules`, unless the package can be
    imported.
    """

    @contextmanager
    def context(importer: ModuleType) -> Iterator[None]:
        package = modules[0]
        if _importable(package):
            yield
            return
        before = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == package}
        for name in before:
            del sys.modules[name]
        for name in modules:
            module = sys.modules[name] = _AbsentModule(name)
            parent, _, child = name.rpartition(".")
            if parent:
                setattr(sys.modules[parent], child, module)
        try:
            yield
        finally:
            for name in modules:
                sys.modules.pop(name, None)

    return context


def _with_names(package: str, names: Dict[str, Callable[[], Any]]) -> Callable[[ModuleType], ContextManager]:
    """
    The context in which `package` has each of `names`: its own, or what the function makes.
    """

    @contextmanager
    def context(importer: ModuleType) -> Iterator[None]:
        module = importlib.import_module(package)
        added = [name for name in names if not hasattr(module, name)]
        for name in added:
            setattr(module, name, names[name]())
        try:
            yield
        finally:
            for name in added:
                delattr(module, name)

    return context


@contextmanager
def _as_plugin(plugins: ModuleType) -> Iterator[None]:
    """
    Has AllenNLP's commands load this package wherever it is installed, as they load `allennlp_models`. Naming it in a
    plugins file or after `--include-package` as well does no harm.
    """
    yield
    discover_plugins = plugins.discover_plugins

    def discover_with_this_package() -> Iterator[str]:
        yield "spigot_allennlp"
        yield from (name for name in discover_plugins() if name != "spigot_allennlp")

    plugins.discover_plugins = discover_with_this_package


def _adamw() -> type:
    import torch

    class AdamW(torch.optim.AdamW):
        """
        torch's AdamW in place of that of transformers, which 4.51 removed. Both decay the weights apart from the
        gradient; torch's always corrects the bias of its running averages.
        """

        def __init__(self, params: Any, correct_bias: bool = True, **kwargs: Any) -> None:
            if not correct_bias:
                raise ValueError(
                    "correct_bias: false needs a version of transformers before 4.51, which has an AdamW of its own; "
                    "valid here: true"
                )
            super().__init__(params, **kwargs)

    return AdamW


def _absent_from_hub(name: str) -> Callable[[], Any]:
    return lambda: _AbsentMeta(
        name, (), {"_message": f"`allennlp push-to-hf` needs huggingface_hub.{name}: pip install 'huggingface_hub<1'"}
    )


# What each module of AllenNLP is executed in.
_CONTEXTS: Dict[str, Callable[[ModuleType], ContextManager]] = {
    **dict.fromkeys(
        (
            "allennlp.data.image_loader",
            "allennlp.modules.vision.grid_embedder",
            "allennlp.modules.vision.region_detector",
        ),
        _without("torchvision", "torchvision.ops", "torchvision.ops.boxes"),
    ),
    **dict.fromkeys(
        ("allennlp.nn.parallel.fairscale_fsdp_accelerator", "allennlp.nn.checkpoint.fairscale_checkpoint_wrapper"),
        _without(
            "fairscale",
            "fairscale.nn",
            "fairscale.nn.wrap",
            "fairscale.nn.misc",
            "fairscale.nn.checkpoint",
            "fairscale.optim",
            "fairscale.optim.grad_scaler",
        ),
    ),
    "allennlp.training.optimizers": _with_names("transformers", {"AdamW": _adamw}),
    "allennlp.common.push_to_hf": _with_names(
        "huggingface_hub", {name: _absent_from_hub(name) for name in ("HfFolder", "Repository")}
    ),
    "allennlp.common.plugins": _as_plugin,
}


class _Finder:
    """
    Finds the modules of `_CONTEXTS` where they are, and has each executed in its context.
    """

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> Optional[importlib.machinery.ModuleSpec]:
        context = _CONTEXTS.get(name)
        if context is None:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None:
            execute = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                with context(module):
                    execute(module)

            spec.loader.exec_module = exec_module
        return spec


def register() -> None:
    """
    Register the finder, once.
    """
    # From Google's client, which cached-path imports, about the age of Python 3.10.
    warnings.filterwarnings(
        "ignore", "You are using a non-supported Python version", FutureWarning, r"google\.api_core\..*"
    )
    if _Finder not in sys.meta_path:
        sys.meta_path.insert(0, _Finder)


register()
