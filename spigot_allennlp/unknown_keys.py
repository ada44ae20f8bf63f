"""
What is wrong with a key of a config that no constructor knows.
"""

import inspect
from typing import Any, Dict, List

from allennlp.common.checks import ConfigurationError


def refuse_unknown_keys(instance: Any, kwargs: Dict[str, Any]) -> None:
    """
    To be called in a constructor that hands its `**kwargs` on to AllenNLP's base class. There a misspelt key of a
    config would end in a `TypeError` that names neither the class nor what would be valid.

    # Parameters

    instance : `Any`
        What is being constructed.
    kwargs : `Dict[str, Any]`
        What its constructor does not know itself.

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
