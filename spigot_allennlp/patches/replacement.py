import functools
import inspect
import sys
from typing import Any, Callable

_PATCHED = "_spigot_allennlp_patched"


def replace(owner: Any, name: str, make: Callable[[Callable], Callable]) -> None:
    """
    Puts `make(original)` in the place of the function `owner.name`, once.
    """
    attribute = inspect.getattr_static(owner, name)
    of_class = isinstance(attribute, classmethod)
    original = attribute.__func__ if of_class else attribute
    if not hasattr(original, _PATCHED):
        replacement = functools.wraps(original)(make(original))
        setattr(replacement, _PATCHED, True)
        setattr(owner, name, classmethod(replacement) if of_class else replacement)


def replace_everywhere(owner: Any, name: str, make: Callable[[Callable], Callable]) -> None:
    """
    As `replace`, for a function that modules have imported by its name, too: commands and predictors, for example.
    """
    original = getattr(owner, name)
    replace(owner, name, make)
    for module in list(sys.modules.values()):
        if getattr(module, name, None) is original:
            setattr(module, name, getattr(owner, name))
