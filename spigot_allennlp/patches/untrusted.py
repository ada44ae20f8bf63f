"""
What holds while an archive is loaded, whoever made it: nothing of it runs, nothing is written outside of the directory
that it is unpacked into, and nothing is fetched from an address that its config names.

The rules are enforced where code would run or a connection would be opened, whatever key of a config leads there:

- `torch.load` reads tensors only, and no other pickle is read;
- transformers runs no code from a model's repository, takes keyword arguments from a list, and no addresses;
- cached-path fetches nothing but the archive itself, unless the environment variable `SPIGOT_ALLOW_DOWNLOADS` is 1;
- spaCy's pipelines are not installed, and no program is compiled;
- classes come from modules that are imported already;
- a config is JSON, not jsonnet, which reads files and environment variables;
- what the loader passes to a constructor (`vocab`, `serialization_dir`, ...) is not replaced by the config.

Names of models on the Hugging Face Hub are looked up as transformers does it: archives with a transformer need that.
"""

import json
import os
import sys
import tarfile
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Callable, Collection, Dict, Iterator, Optional

import torch
from allennlp.common import Params, Registrable, cached_transformers, from_params
from allennlp.common import util as common_util
from allennlp.common.checks import ConfigurationError
from allennlp.modules.transformer import TransformerModule
from allennlp.nn import Activation, initializers
from allennlp.training.metrics.evalb_bracketing_scorer import EvalbBracketingScorer
from allennlp.training.optimizers import Optimizer
from transformers import AutoConfig, AutoTokenizer, dynamic_module_utils

from spigot_allennlp.patches.replacement import replace

# What AllenNLP registers that is not a subclass of what it is registered for.
_REGISTERED_FOR = {Activation: torch.nn.Module, Optimizer: torch.optim.Optimizer}

# The archive that the caller named, while it is loaded.
_archive: ContextVar[Optional[str]] = ContextVar("archive", default=None)

_reads_tensors_only: ContextVar[bool] = ContextVar("reads_tensors_only", default=False)

# Of `AutoModel.from_pretrained`, besides the attributes of the model's own configuration.
_MODEL_ARGUMENTS = ("attn_implementation", "revision")

_TOKENIZER_ARGUMENTS = (
    "add_bos_token",
    "add_eos_token",
    "add_prefix_space",
    "additional_special_tokens",
    "bos_token",
    "clean_up_tokenization_spaces",
    "cls_token",
    "do_basic_tokenize",
    "do_lower_case",
    "eos_token",
    "keep_accents",
    "mask_token",
    "max_len",
    "model_max_length",
    "never_split",
    "pad_token",
    "padding_side",
    "revision",
    "sep_token",
    "strip_accents",
    "tokenize_chinese_chars",
    "truncation_side",
    "unk_token",
    "use_fast",
)


def apply() -> None:
    """Apply every patch. Calling it again does nothing."""
    replace(torch, "load", _tensors_only)
    replace(initializers.PretrainedModelInitializer, "__init__", reading_tensors_only)
    replace(cached_transformers, "get", _listed_model_arguments)
    replace(AutoTokenizer, "from_pretrained", _listed_tokenizer_arguments)
    replace(TransformerModule, "from_pretrained_module", _listed_arguments_of_a_module)
    replace(dynamic_module_utils, "get_class_in_module", _refused("code from the repository of a transformer"))
    replace(sys.modules["cached_path._cached_path"], "get_from_cache", _the_archive_only)
    replace(common_util, "spacy_download", _refused("a pipeline of spaCy that is not installed"))
    replace(EvalbBracketingScorer, "compile_evalb", _refused("a program that is to be compiled"))
    replace(Registrable, "resolve_class_name", _classes_only)
    replace(from_params, "pop_and_construct_arg", _what_the_loader_passes)
    replace(Params, "from_file", _json_only)


@contextmanager
def loading(archive: Any) -> Iterator[None]:
    """
    While this is entered, the rules above hold in this thread.

    # Parameters

    archive : `str` or `PathLike`
        Archive that the caller named; an archive inside it is one that only its config names.
    """
    _watch_pickles()
    token = _archive.set(_archive.get() or str(archive))
    try:
        yield
    finally:
        _archive.reset(token)


def _watch_pickles() -> None:
    """By a hook of the interpreter: there is no other place that every unpickler passes. It stays until the end."""
    if not getattr(_watch_pickles, "watching", False):
        _watch_pickles.watching = True

        def hook(event: str, arguments: Any) -> None:
            if event == "pickle.find_class" and _archive.get():
                raise ConfigurationError(
                    f"it would read a pickle with {'.'.join(map(str, arguments))}, which could run code. Valid: "
                    "tensors, as torch and safetensors write them"
                )

        sys.addaudithook(hook)


def _refused(what: str) -> Callable[[Callable], Callable]:
    def make(original: Callable) -> Callable:
        def function(*args: Any, **kwargs: Any) -> Any:
            if _archive.get():
                raise ConfigurationError(f"its config asks for {what}")
            return original(*args, **kwargs)

        return function

    return make


def _tensors_only(original: Callable) -> Callable:
    """Whatever the caller's arguments and the version of torch, which checks by default since 2.6 only."""

    def load(f: Any, map_location: Any = None, pickle_module: Any = None, **kwargs: Any) -> Any:
        if not (_archive.get() or _reads_tensors_only.get()):
            return original(f, map_location, pickle_module, **kwargs)
        # Before torch 2.6 its check did not hold for the oldest format (CVE-2025-32434).
        if torch.__version__ < (2, 6) and tarfile.is_tarfile(f):
            raise ConfigurationError(f"{f} is in a format of torch before 0.4, which could run code")
        return original(f, map_location, **{**kwargs, "weights_only": True})

    return load


def reading_tensors_only(original: Callable) -> Callable:
    """A function whose calls of `torch.load` read nothing else, whether an archive is being loaded or not."""

    def function(*args: Any, **kwargs: Any) -> Any:
        token = _reads_tensors_only.set(True)
        try:
            return original(*args, **kwargs)
        finally:
            _reads_tensors_only.reset(token)

    return function


def _listed_model_arguments(original: Callable) -> Callable:
    original = reading_tensors_only(original)

    def get(model_name: str, make_copy: bool, *args: Any, **kwargs: Any) -> Any:
        if _archive.get():
            own = ("override_weights_file", "override_weights_strip_prefix", "reinit_modules", "load_weights")
            _check_model(model_name, {key: value for key, value in kwargs.items() if key not in own})
            kwargs["trust_remote_code"] = False
        return original(model_name, make_copy, *args, **kwargs)

    return get


def _listed_arguments_of_a_module(original: Callable) -> Callable:
    def from_pretrained_module(cls: Any, model_name: str, **kwargs: Any) -> Any:
        if _archive.get():
            _check_model(model_name, kwargs.get("auto_config_kwargs") or {})
        return original(cls, model_name, **kwargs)

    return from_pretrained_module


def _listed_tokenizer_arguments(original: Callable) -> Callable:
    def from_pretrained(cls: Any, model_name: str, *args: Any, **kwargs: Any) -> Any:
        if _archive.get():
            _check_name(model_name)
            _check_arguments("AutoTokenizer", kwargs, _TOKENIZER_ARGUMENTS)
            kwargs["trust_remote_code"] = False
        return original(cls, model_name, *args, **kwargs)

    return from_pretrained


def _check_model(name: str, arguments: Dict[str, Any]) -> None:
    _check_name(name)
    if set(arguments) - set(_MODEL_ARGUMENTS):
        config = AutoConfig.from_pretrained(name, trust_remote_code=False)
        attributes = [
            key for key in config.to_dict() if key[0] != "_" and key not in ("auto_map", "quantization_config")
        ]
        _check_arguments(type(config).__name__, arguments, (*_MODEL_ARGUMENTS, *attributes))
    if "/" in str(arguments.get("attn_implementation")):
        raise ConfigurationError("its config asks for code from the Hugging Face Hub, as 'attn_implementation'")


def _check_name(name: Any) -> None:
    if "://" in str(name) and not _downloads_are_allowed():
        raise ConfigurationError(_fetches(name))


def _check_arguments(of: str, arguments: Collection[str], valid: Collection[str]) -> None:
    unknown = [key for key in arguments if key not in valid]
    if unknown:
        raise ConfigurationError(
            f"its config gives {of} {', '.join(map(repr, unknown))}; valid in an archive: {', '.join(sorted(valid))}"
        )


def _the_archive_only(original: Callable) -> Callable:
    def get_from_cache(url: str, *args: Any, **kwargs: Any) -> Any:
        archive = _archive.get()
        if archive and url != archive and not _downloads_are_allowed():
            raise ConfigurationError(_fetches(url))
        return original(url, *args, **kwargs)

    return get_from_cache


def _downloads_are_allowed() -> bool:
    return os.environ.get("SPIGOT_ALLOW_DOWNLOADS") == "1"


def _fetches(address: Any) -> str:
    shown = str(address)[:200]
    return f"its config names the address {shown}; the environment variable SPIGOT_ALLOW_DOWNLOADS=1 allows fetching it"


def _classes_only(original: Callable) -> Callable:
    """
    In place of a registered name a config may give the path of a class. It has to be of the kind that is wanted, and in
    an archive its module has to be imported already: importing one may run anything.
    """

    def resolve_class_name(cls: Any, name: str) -> Any:
        if name in Registrable._registry[cls]:
            return original(cls, name)
        module = name.rpartition(".")[0]
        if _archive.get() and module and module not in sys.modules:
            raise ConfigurationError(
                f"its config names the class '{name}', but {module} is not imported. If you trust it, import it first: "
                f"--include-package {module}"
            )
        found = original(cls, name)
        wanted = (cls, *(base for kind, base in _REGISTERED_FOR.items() if kind is cls))
        if not (isinstance(found[0], type) and issubclass(found[0], wanted)):
            raise ConfigurationError(f"'{name}' is not a {cls.__name__}; valid: {', '.join(cls.list_available())}")
        return found

    return resolve_class_name


def _what_the_loader_passes(original: Callable) -> Callable:
    """AllenNLP prefers what the config says, with a warning: a vocabulary from elsewhere, for example."""

    def pop_and_construct_arg(
        class_name: str, argument_name: str, annotation: Any, default: Any, params: Params, **extras: Any
    ) -> Any:
        if _archive.get() and argument_name in extras and argument_name in params:
            raise ConfigurationError(
                f"its config has '{argument_name}' for {class_name}, which is for the loader to pass"
            )
        return original(class_name, argument_name, annotation, default, params, **extras)

    return pop_and_construct_arg


def _json_only(original: Callable) -> Callable:
    def from_file(cls: Any, params_file: Any, *args: Any, **kwargs: Any) -> Any:
        if _archive.get():
            with open(params_file, encoding="utf-8") as file:
                try:
                    json.load(file)
                except json.JSONDecodeError as error:
                    name = os.path.basename(params_file)
                    raise ConfigurationError(f"{name}:{error.lineno}:{error.colno}: no JSON: {error.msg}") from None
        return original(cls, params_file, *args, **kwargs)

    return from_file
