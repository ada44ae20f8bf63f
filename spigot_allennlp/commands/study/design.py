"""
What a study consists of: from a base config and a description to the fully resolved settings of every run.
"""

import copy
import functools
import hashlib
import inspect
import itertools
import json
import logging
import os
import re
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Tuple

from allennlp.common import Params
from allennlp.common.checks import ConfigurationError
from allennlp.common.from_params import infer_constructor_params
from allennlp.common.params import parse_overrides, with_overrides
from allennlp.models import Model

from spigot_allennlp.checks import positive
from spigot_allennlp.commands.study.validation_metric import ValidationMetric
from spigot_allennlp.config_keys import check_config_keys
from spigot_allennlp.estimators import Estimator
from spigot_allennlp.structures import LatentStructure

SEEDS = ("random_seed", "numpy_seed", "pytorch_seed")
LEARNING_RATE = "trainer.optimizer.lr"

# The keys of a description, by the type of their elements. `overrides` maps dotted keys to such lists.
_ELEMENTS: Dict[str, Tuple[type, ...]] = {
    "estimators": (str, dict),
    "baselines": (str,),
    "step_sizes": (int, float),
    "num_steps": (int,),
    "learning_rates": (int, float),
    "seeds": (int,),
}
# Flags that fill in a key of those estimators which take it.
_ESTIMATOR_AXES = {"step_sizes": "step_size", "num_steps": "num_steps"}


def label(name: str, settings: Dict[str, Any], shown: List[str]) -> str:
    """The name, with those settings that are in `shown`."""
    return " ".join([name, *(f"{key}={settings[key]}" for key in shown if settings.get(key) is not None)])


class Run(NamedTuple):
    """
    # Parameters

    name : `str`
        Name that the run is listed under: the estimator's, or the config's where it is trained as it is.
    config : `str`
        Path of the config that the run is made from.
    estimator : `str`, optional
        Registered name of the estimator.
    settings : `Dict[str, Any]`
        Estimator's constructor arguments with their defaults, the learning rate, and other values that the study
        varies.
    seed : `int`, optional
        Random seed; `None` leaves the config's own.
    params : `Dict[str, Any]`
        Full config of the run, as `allennlp train` takes it.
    """

    name: str
    config: str
    estimator: Optional[str]
    settings: Dict[str, Any]
    seed: Optional[int]
    params: Dict[str, Any]

    @property
    def folder(self) -> str:
        """Its folder's name: runs are the same if all their resolved settings are."""
        digest = hashlib.sha256(json.dumps(self.params, sort_keys=True).encode()).hexdigest()[:10]
        return f"{re.sub(r'[^A-Za-z0-9.+-]+', '_', self.name)}-seed{self.seed}-{digest}"

    def describe(self, names: List[str]) -> str:
        """In a line, with the settings in `names`."""
        return f"{label(self.name, self.settings, names)} seed={self.seed}"


class Design(NamedTuple):
    """
    # Parameters

    runs : `List[Run]`
        All runs of the study.
    configs : `Dict[str, Dict[str, Any]]`
        Configs before the study varies them, without seeds: the base under `"base"`, baselines under
        their names.
    metric : `ValidationMetric`
        Metric that settings are chosen by, the same for all configs.
    """

    runs: List[Run]
    configs: Dict[str, Dict[str, Any]]
    metric: ValidationMetric

    def varying(self) -> List[str]:
        """The settings that tell runs of one name apart."""
        values: Dict[Tuple[str, str], set] = {}
        for run in self.runs:
            for name, value in run.settings.items():
                values.setdefault((run.name, name), set()).add(json.dumps(value))
        names = [name for run in self.runs for name in run.settings]
        return [
            name for name in dict.fromkeys(names) if any(len(values.get((r.name, name), ())) > 1 for r in self.runs)
        ]


def read_description(path: Optional[str], flags: Dict[str, Any]) -> Dict[str, Any]:
    """
    # Parameters

    path : `str`, optional
        A jsonnet file with some of the keys `estimators`, `baselines`, `step_sizes`, `num_steps`, `learning_rates`,
        `seeds` and `overrides`.
    flags : `Dict[str, Any]`
        Values of the same keys from the command line, `None` where not given; they replace what the file says.

    # Errors

    `ConfigurationError` for unknown keys, values of other types, and seeds and learning rates out of range.
    """
    description = _read(path) if path else {}
    where = f"{path}: " if path else ""
    valid = [*_ELEMENTS, "overrides"]
    for key in description:
        if key not in valid:
            raise ConfigurationError(f"{where}unknown key {key!r}; valid: {', '.join(valid)}")
    description.update({key: values for key, values in flags.items() if values is not None})
    for key, types in _ELEMENTS.items():
        _check_list(where, key, description.setdefault(key, []), types)
    for seed in description["seeds"]:
        if not 0 <= seed < 2**32:
            raise ConfigurationError(f"{where}seeds has {seed}; valid: 0 to {2**32 - 1}, as NumPy takes them")
    for rate in description["learning_rates"]:
        positive(f"{where}a learning rate", rate)
    overrides = description.setdefault("overrides", {})
    if not isinstance(overrides, dict):
        raise ConfigurationError(f"{where}overrides is {overrides!r}; valid: an object of dotted keys and lists")
    for key, values in overrides.items():
        if not isinstance(values, list) or not values:
            raise ConfigurationError(f"{where}overrides: {key!r} is {values!r}; valid: a list of the values to try")
    if description["learning_rates"]:
        if LEARNING_RATE in overrides:
            raise ConfigurationError(f"{where}learning_rates and overrides of {LEARNING_RATE!r} say the same thing")
        description["overrides"] = {LEARNING_RATE: description["learning_rates"], **overrides}
    return description


def _check_list(where: str, key: str, values: Any, types: Tuple[type, ...]) -> None:
    if not isinstance(values, list):
        raise ConfigurationError(f"{where}{key} is {values!r}; valid: a list")
    for value in values:
        if not isinstance(value, types) or isinstance(value, bool):
            names = {str: "a name", dict: "an object", int: "an integer", float: "a number"}
            valid = " or ".join(names[type_] for type_ in types if type_ is not int or float not in types)
            raise ConfigurationError(f"{where}{key} has {value!r}; valid: {valid}")


def design(config: str, description: Dict[str, Any], overrides: str = "") -> Design:
    """
    # Parameters

    config : `str`
        Base config, which every estimator is put into, at `model.estimator`.
    description : `Dict[str, Any]`
        Description of the study, from `read_description`.
    overrides : `str`, optional
        Overrides for all configs, baselines too, as `allennlp train` takes them.

    # Errors

    `ConfigurationError` for what can be known before training: unknown estimators and arguments, values out of range,
    estimators that the structure cannot serve, configs and overrides that do not fit, configs without validation data
    or with different validation metrics.
    """
    try:
        fixed = parse_overrides(overrides)
    except (RuntimeError, ValueError) as error:
        raise ConfigurationError(f"overrides {overrides!r} are no JSON: {error}") from error
    seeds = description["seeds"] or [None]
    axes = list(_product(description["overrides"]))
    runs: List[Run] = []
    configs: Dict[str, Dict[str, Any]] = {}

    @functools.lru_cache(maxsize=None)
    def resolved(path: str, seed: Optional[int]) -> Dict[str, Any]:
        """Jsonnet takes its time, and there may be thousands of settings."""
        return _resolved(path, fixed, seed)

    def add(name: str, path: str, arguments: Optional[Dict[str, Any]]) -> None:
        for values, seed in itertools.product(axes, seeds):
            params = _override(path, resolved(path, seed), values)
            _check_parts(path, params)
            if arguments is not None:
                params["model"]["estimator"] = arguments
            if "estimator" in params["model"]:
                _check_estimator(path, params, name, _as_object(params["model"]["estimator"]))
            found = ValidationMetric.of(path, params)
            if found != metric:
                raise ConfigurationError(
                    f"{name} has another trainer.validation_metric than {config}, {found.direction} and "
                    f"{metric.direction}; the overrides (-o) can make them one"
                )
            with _quietly():
                try:
                    check_config_keys(params)
                except ConfigurationError as error:
                    raise ConfigurationError(f"the config {path}, with its overrides: {error}") from error
            runs.append(_run(name, path, params, values))

    base = resolved(config, None)
    metric = ValidationMetric.of(config, base)
    configs["base"] = _without_seeds(base)
    entries = _estimators(config, base, description)
    replaced = [key for key in (*fixed, *description["overrides"]) if key.split(".")[:2] == ["model", "estimator"]]
    if description["estimators"] and replaced:
        raise ConfigurationError(
            f"{replaced[0]!r} is overridden in a config whose estimator the study replaces; valid: settings of single "
            "estimators in a study file (--grid)"
        )
    if entries:
        for name, choices in entries:
            for arguments in choices:
                add(name, config, arguments)
    else:
        add(Path(config).stem, config, None)

    taken = {run.name for run in runs}
    for path in description["baselines"]:
        params = resolved(path, None)
        name = Path(path).stem if Path(path).stem not in taken else os.path.splitext(path)[0]
        if description["baselines"].count(path) > 1 or name in taken:
            raise ConfigurationError(f"the baseline {path} is named twice")
        taken.add(name)
        configs[name] = _without_seeds(params)
        add(name, path, None)
    # What is the same in all its settings is one run, listed under the first of its names.
    distinct = {json.dumps(run.params, sort_keys=True): run for run in reversed(runs)}
    return Design(list(distinct.values())[::-1], configs, metric)


def _estimators(
    config: str, base: Dict[str, Any], description: Dict[str, Any]
) -> List[Tuple[str, List[Dict[str, Any]]]]:
    """The estimators by name, each with all of its settings."""
    given = description["estimators"]
    axes = {key: flag for flag, key in _ESTIMATOR_AXES.items() if description[flag]}
    if not given and axes:
        if "estimator" not in base["model"]:
            raise ConfigurationError(f"{config} has no model.estimator whose {' and '.join(axes)} could be varied")
        given = [{key: value for key, value in _as_object(base["model"]["estimator"]).items() if key not in axes}]
    elif given:
        _check_takes_estimator(config, base)
    entries: Dict[str, List[Dict[str, Any]]] = {}
    unused = dict(axes)
    for entry in map(_as_object, given):
        name = entry.pop("name", entry["type"])
        if not isinstance(name, str):
            raise ConfigurationError(f"an estimator is called {name!r}; valid: a string")
        if name in entries:
            raise ConfigurationError(f"two estimators are called {name!r}; give one of them another 'name'")
        keys = _estimator_keys(entry["type"])
        for key, flag in axes.items():
            if key in keys:
                entry.setdefault(key, description[flag])
                unused.pop(key, None)
        lists = {key: value if isinstance(value, list) else [value] for key, value in entry.items()}
        for key, values in lists.items():
            if not values:
                raise ConfigurationError(f"the estimator {name}: {key} has no values")
        entries[name] = list(_product(lists))
    for key, flag in unused.items():
        raise ConfigurationError(f"{flag}: none of the estimators {', '.join(entries)} takes a {key}")
    return list(entries.items())


def _check_takes_estimator(config: str, params: Dict[str, Any]) -> None:
    name = params["model"].get("type")
    try:
        model, constructor = Model.resolve_class_name(name)
    except (ConfigurationError, TypeError) as error:
        raise ConfigurationError(f"{config}: model.type is {name!r}, which is not a registered model") from error
    if constructor is None and "estimator" not in infer_constructor_params(model):
        raise ConfigurationError(f"{config}: the model {name!r} takes no estimator")


def _estimator_keys(name: str) -> Dict[str, Any]:
    """The arguments of the constructor and their defaults (`inspect.Parameter.empty` where there is none)."""
    try:
        estimator, _ = Estimator.resolve_class_name(name)
    except (ConfigurationError, TypeError) as error:
        raise ConfigurationError(f"unknown estimator {name!r}; valid: {_valid_estimators()}") from error
    keys = infer_constructor_params(estimator)
    return {key: parameter.default for key, parameter in keys.items() if key != "self"}


def _valid_estimators() -> str:
    return ", ".join(sorted(Estimator.list_available()))


def _check_estimator(config: str, params: Dict[str, Any], name: str, arguments: Dict[str, Any]) -> None:
    keys = _estimator_keys(arguments["type"])
    for key in arguments:
        if key not in ("type", *keys):
            raise ConfigurationError(
                f"the estimator {name} ({arguments['type']}) has no key {key!r}; valid: {', '.join(keys) or 'none'}"
            )
    with _quietly():
        try:
            estimator = Estimator.from_params(Params(copy.deepcopy(arguments)))
            structure = copy.deepcopy(params["model"].get("structure"))
            if structure is not None:
                structure = LatentStructure.from_params(structure if isinstance(structure, str) else Params(structure))
                estimator.check(structure)
        except (ConfigurationError, TypeError) as error:
            raise ConfigurationError(f"{config} with the estimator {name}, {arguments}: {error}") from error


@contextmanager
def _quietly() -> Iterator[None]:
    """AllenNLP logs every key that it reads: right in training, but nothing is trained here."""
    disabled = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        yield
    finally:
        logging.disable(disabled)


def _as_object(estimator: Any) -> Dict[str, Any]:
    if isinstance(estimator, str):
        return {"type": estimator}
    return {"type": Estimator.default_implementation, **estimator}


def _read(path: str, seed: Optional[int] = None) -> Dict[str, Any]:
    if not os.path.isfile(path):
        raise ConfigurationError(f"the config {path} does not exist")
    try:
        params = Params.from_file(path, ext_vars={} if seed is None else {"SPIGOT_SEED": str(seed)}).params
    except (RuntimeError, ValueError) as error:
        raise ConfigurationError(f"the config {path} cannot be read: {error}") from error
    if not isinstance(params, dict):
        raise ConfigurationError(f"the config {path} is {json.dumps(params)[:60]}; valid: an object")
    return params


def _resolved(path: str, overrides: Dict[str, Any], seed: Optional[int]) -> Dict[str, Any]:
    """What the config says with `overrides` and, if one is given, with `seed`."""
    params = _override(path, _read(path, seed), overrides)
    if seed is not None:
        params.update(dict.fromkeys(SEEDS, seed))
    _check_parts(path, params)
    return params


def _check_parts(path: str, params: Dict[str, Any]) -> None:
    if not isinstance(params.get("model"), dict) or not isinstance(params.get("trainer"), dict):
        raise ConfigurationError(f"the config {path} has no model and trainer to study")
    if "validation_data_path" not in params:
        raise ConfigurationError(f"the config {path} has no validation_data_path, by which settings are chosen")


def _override(path: str, params: Dict[str, Any], overrides: Dict[str, Any]) -> Dict[str, Any]:
    try:
        return with_overrides(params, overrides)
    except ValueError as error:
        raise ConfigurationError(f"the config {path} cannot be overridden with {overrides}: {error}") from error


def _without_seeds(params: Dict[str, Any]) -> Dict[str, Any]:
    return {key: value for key, value in params.items() if key not in SEEDS}


def _product(lists: Dict[str, List[Any]]) -> Iterator[Dict[str, Any]]:
    for values in itertools.product(*lists.values()):
        yield dict(zip(lists, values))


def _run(name: str, path: str, params: Dict[str, Any], varied: Dict[str, Any]) -> Run:
    settings: Dict[str, Any] = {}
    estimator = None
    if "estimator" in params["model"]:
        arguments = _as_object(params["model"]["estimator"])
        estimator = arguments.pop("type")
        defaults = _estimator_keys(estimator).items()
        settings = {key: value for key, value in defaults if value is not inspect.Parameter.empty}
        settings.update(arguments)
    settings.update({key: value for key, value in varied.items() if key != LEARNING_RATE})
    optimizer = params["trainer"].get("optimizer")
    if isinstance(optimizer, dict) and "lr" in optimizer:
        settings["learning_rate"] = optimizer["lr"]
    return Run(name, path, estimator, settings, params.get("random_seed"), params)
