"""
Misspelt keys of a config: each is refused before anything is trained, with the keys that are valid.
"""

from typing import Any, Callable, Dict, Type

from allennlp.common import Params, from_params
from allennlp.common.checks import ConfigurationError

from spigot_allennlp.config_keys import takes_other_keys, unknown_keys, valid_keys
from spigot_allennlp.patches.replacement import replace


def apply() -> None:
    """
    Apply every patch of this file. Calling it again does nothing.
    """
    replace(from_params, "create_kwargs", _known_keys)


def _known_keys(original: Callable) -> Callable:
    """AllenNLP's error lacks the valid keys, and the trainer ignores what it does not know."""

    def create_kwargs(constructor: Callable, cls: Type, params: Params, **extras: Any) -> Dict[str, Any]:
        try:
            kwargs = original(constructor, cls, params, **extras)
        except ConfigurationError as error:
            if str(error).startswith(f"Extra parameters passed to {cls.__name__}: "):
                valid = [key for key in valid_keys(cls, constructor) if key not in extras]
                raise unknown_keys(cls.__name__, list(params), valid) from None
            raise
        valid = [key for key in valid_keys(cls, constructor) if key not in extras]
        unknown = [key for key in kwargs if key not in valid and key not in extras]
        if unknown and not takes_other_keys(cls, constructor):
            raise unknown_keys(cls.__name__, unknown, valid)
        return kwargs

    return create_kwargs
