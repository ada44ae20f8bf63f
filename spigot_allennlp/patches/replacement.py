import functools
import inspect
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
