"""
Latent structured variables in AllenNLP: a model scores the parts of a structure, an estimator decides what
flows back through it, and the structure does the combinatorics.

Importing the package registers all of its components with AllenNLP.
"""

import importlib.util

# Before AllenNLP is imported; Python's start-up has done so where the package is installed.
import spigot_allennlp_startup  # noqa: F401
from spigot_allennlp.version import VERSION as __version__

__all__ = ["Parser", "__version__", "load"]


if importlib.util.find_spec("allennlp") is None:
    raise ImportError(
        "spigot_allennlp needs AllenNLP 2.10.1, which is not installed. Its own pins cannot be satisfied beside a "
        "current torch, so run in the repository of spigot_allennlp\n\n    python scripts/pip_install.py .\n"
    )

from spigot_allennlp import patches

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
from spigot_allennlp.parser import Parser, load  # noqa: E402
