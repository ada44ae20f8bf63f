"""
Latent structured variables in AllenNLP: a model scores the parts of a structure, an estimator decides what
flows back through it, and the structure does the combinatorics.

Importing the package registers all of its components with AllenNLP.
"""

import importlib
import importlib.util
import sys
import sysconfig

from spigot_allennlp.version import VERSION as __version__

__all__ = ["__version__"]


def _require_allennlp() -> None:
    """
    pip cannot bring AllenNLP along (`setup.cfg` says why), so what it leaves out is asked for here, before
    the rest of the package fails on it in some less helpful way.
    """
    plain, torchvision, reasons = [], [], []
    for requirement in ("allennlp==2.10.1", "fairscale==0.4.13", "torchvision==0.15.2"):
        name = requirement.partition("==")[0]
        try:
            if importlib.util.find_spec(name) is None:
                raise ModuleNotFoundError(f"No module named {name!r}")
            if (
                name == "torchvision"
            ):  # It may be there and yet, made for another torch, raise whatever it comes across.
                importlib.import_module(name)
        except Exception as error:
            reasons.append(str(error))
            needs_target = name == "torchvision" and sys.version_info >= (3, 12)
            (torchvision if needs_target else plain).append(requirement)
    if not reasons:
        return
    pip_install = f"{sys.executable} -m pip install --no-deps"
    installs = [" ".join([pip_install, *plain])] if plain else []
    if torchvision:
        # There is no such wheel for Python 3.12, but its Python part, all that is needed, works there.
        site_packages = sysconfig.get_path("purelib")
        installs.append(f"{pip_install} --python-version 3.11 --upgrade --target {site_packages} {torchvision[0]}")
    raise ImportError(
        "spigot_allennlp needs AllenNLP 2.10.1 and what that imports, which this environment lacks "
        f"({'; '.join(reasons)}). AllenNLP's own pins cannot be satisfied beside a current torch, so install "
        "it without them:\n\n    " + " && \\\n    ".join(installs) + "\n"
    )


_require_allennlp()

from spigot_allennlp import patches  # noqa: E402

# Before anything else: the patches have to be in place when AllenNLP's classes are first used.
patches.apply()

from spigot_allennlp import external_variables  # noqa: E402

external_variables.set_defaults()

from spigot_allennlp import (  # noqa: E402, F401
    commands,
    data,
    estimators,
    functional,
    metrics,
    models,
    modules,
    predictors,
    structures,
    training,
)
