"""
The keys that a config's constructors take, found by their signatures, without building anything.
"""

import inspect
from typing import Any, Dict, Iterator, List, Tuple, Type, Union, get_args, get_origin

from allennlp.commands.train import TrainModel
from allennlp.common import FromParams, Lazy, Registrable
from allennlp.common.checks import ConfigurationError
from allennlp.common.from_params import infer_constructor_params
from allennlp.data import DataLoader, DatasetReader, TokenIndexer
from allennlp.models import Model
from allennlp.training import Trainer

# `allennlp train` reads these itself.
_OF_TRAIN = ("distributed", "evaluation", "include_in_archive", "numpy_seed", "pytorch_seed", "random_seed")

# What the constructors of these do not know they hand to their base class, or ignore. Elsewhere `**kwargs` may be what
# they say: any keyword argument.
_WITHOUT_OTHER_KEYS = (DataLoader, DatasetReader, Model, TokenIndexer, Trainer)
_PACKAGES = ("allennlp.", "spigot_allennlp.")

# An old name, which the trainer takes from its `**kwargs`.
_DEPRECATED = {"run_sanity_checks"}


def takes_other_keys(cls: Type, constructor: Any) -> bool:
    """Whether a constructor may use keys that are not among `valid_keys`."""
    parameters = infer_constructor_params(cls, constructor).values()
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return False
    return not (issubclass(cls, _WITHOUT_OTHER_KEYS) and cls.__module__.startswith(_PACKAGES))


def valid_keys(cls: Type, constructor: Any) -> List[str]:
    """The names of the parameters of `constructor`, and of the constructors that its `**kwargs` go to."""
    names = {
        name
        for name, parameter in infer_constructor_params(cls, constructor).items()
        if name not in ("self", "cls") and parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
    }
    return sorted(names | _DEPRECATED if issubclass(cls, Trainer) else names)


def unknown_keys(what: str, unknown: List[str], valid: List[str]) -> ConfigurationError:
    """The error for keys that `what` does not have."""
    shown = [key for key in valid if key not in _DEPRECATED]
    return ConfigurationError(f"{what} has no key {', '.join(map(repr, unknown))}; valid: {', '.join(shown) or 'none'}")


def check_config_keys(config: Dict[str, Any]) -> None:
    """
    # Parameters

    config : `Dict[str, Any]`
        Config, as `allennlp train` takes it.

    # Errors

    `ConfigurationError` for a key at any depth that no constructor takes, with its place and the valid keys. Classes
    that read their part of a config themselves are passed over.
    """
    constructor = TrainModel.from_partial_objects
    given = {"serialization_dir", "local_rank", "ddp_accelerator"}
    valid = [key for key in valid_keys(TrainModel, constructor) if key not in given]
    own = {key: value for key, value in config.items() if key not in _OF_TRAIN}
    unknown = [key for key in own if key not in valid]
    if unknown:
        raise unknown_keys("the config", unknown, [*valid, *_OF_TRAIN])
    for place, annotation, value in _parts("", TrainModel, constructor, own):
        _check(place, annotation, value)


def _check(place: str, annotation: Any, value: Any) -> None:
    arguments = get_args(annotation)
    if get_origin(annotation) is Lazy:
        return _check(place, arguments[0], value)
    if get_origin(annotation) is Union:
        some = [argument for argument in arguments if argument is not type(None)]
        return _check(place, some[0], value) if len(some) == 1 else None
    if isinstance(value, list) and len(arguments) == 1:
        for index, element in enumerate(value):
            _check(f"{place}.{index}", arguments[0], element)
    elif isinstance(value, dict) and get_origin(annotation) is dict and len(arguments) == 2:
        for key, element in value.items():
            _check(f"{place}.{key}", arguments[1], element)
    elif isinstance(value, dict) and isinstance(annotation, type) and issubclass(annotation, FromParams):
        _check_object(place, annotation, value)


def _check_object(place: str, cls: Type[FromParams], value: Dict[str, Any]) -> None:
    value = dict(value)
    constructor: Any = None
    if "_pretrained" in value:
        return
    if issubclass(cls, Registrable) and Registrable._registry.get(cls):
        name = value.pop("type", None) or cls.default_implementation
        if name is None:
            return
        cls, method = cls.resolve_class_name(name)
        constructor = getattr(cls, method) if method else None
    if not (isinstance(cls, type) and issubclass(cls, FromParams)) or "params" in infer_constructor_params(cls):
        return
    if cls.from_params.__func__ is not FromParams.from_params.__func__ and not issubclass(cls, Model):
        return
    valid = valid_keys(cls, constructor)
    unknown = [key for key in value if key not in valid]
    if unknown and not takes_other_keys(cls, constructor):
        raise unknown_keys(f"{place} ({cls.__name__})", unknown, valid)
    for inner, annotation, part in _parts(f"{place}.", cls, constructor, value):
        _check(inner, annotation, part)


def _parts(prefix: str, cls: Type, constructor: Any, value: Dict[str, Any]) -> Iterator[Tuple[str, Any, Any]]:
    parameters = infer_constructor_params(cls, constructor)
    for key, part in value.items():
        if key in parameters and parameters[key].annotation is not inspect.Parameter.empty:
            yield f"{prefix}{key}", parameters[key].annotation, part
