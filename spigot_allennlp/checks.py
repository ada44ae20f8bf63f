"""
Checks of what a config gives to a constructor, in one wording: `<name> is <value>; valid: <what would be>`.
"""

import inspect
from typing import Any, Dict, List, Sequence

from allennlp.common.checks import ConfigurationError


def positive(name: str, value: float) -> float:
    """
    `value`, if it is a finite number above 0.

    # Errors

    `ConfigurationError` otherwise.
    """
    if not (_is_number(value) and 0 < value < float("inf")):
        raise ConfigurationError(f"{name} is {value!r}; valid: a number > 0")
    return value


def nonnegative(name: str, value: float) -> float:
    """
    `value`, if it is a finite number that is at least 0.

    # Errors

    `ConfigurationError` otherwise.
    """
    if not (_is_number(value) and 0 <= value < float("inf")):
        raise ConfigurationError(f"{name} is {value!r}; valid: a number >= 0")
    return value


def at_least(minimum: int, name: str, value: int) -> int:
    """
    `value`, if it is an integer that is at least `minimum`.

    # Errors

    `ConfigurationError` otherwise.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise ConfigurationError(f"{name} is {value!r}; valid: an integer >= {minimum}")
    return value


def at_least_one(name: str, value: int) -> int:
    """
    `value`, if it is an integer above 0.

    # Errors

    `ConfigurationError` otherwise.
    """
    return at_least(1, name, value)


def one_of(name: str, value: str, valid: Sequence[str]) -> str:
    """
    `value`, if it is one of `valid`.

    # Errors

    `ConfigurationError` otherwise.
    """
    if value not in valid:
        raise ConfigurationError(f"{name} is {value!r}; valid: {', '.join(map(repr, valid))}")
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def refuse_unknown_keys(instance: Any, kwargs: Dict[str, Any]) -> None:
    """
    To be called in a constructor that hands its `**kwargs` on to AllenNLP's base class. There a misspelt key of a
    config would end in a `TypeError` that names neither the class nor what would be valid.

    # Parameters

    instance : `Any`
        Object that is being constructed.
    kwargs : `Dict[str, Any]`
        Arguments that its constructor does not know.

    # Errors

    `ConfigurationError` for a key that no constructor of the class or its bases takes.
    """
    valid: List[str] = []
    for base in type(instance).__mro__:
        if "__init__" in vars(base):
            parameters = list(inspect.signature(base.__init__).parameters.values())[1:]
            valid += [parameter.name for parameter in parameters if parameter.kind is not parameter.VAR_KEYWORD]
            if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
                break
    unknown = [key for key in kwargs if key not in valid]
    if unknown:
        raise ConfigurationError(
            f"{type(instance).__name__} has no key {', '.join(map(repr, unknown))}; valid: "
            f"{', '.join(dict.fromkeys(valid))}"
        )
