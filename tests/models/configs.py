"""What the tests of several tasks' configs share."""

from pathlib import Path
from typing import List, Set

from allennlp.common import Params

from spigot_allennlp.estimators import Estimator

ESTIMATORS = [
    name for name in Estimator.list_available() if Estimator.by_name(name).__module__.startswith("spigot_allennlp.")
]
# Those that take any structure.
STRUCTURED_ESTIMATORS = [name for name in ESTIMATORS if not Estimator.by_name(name)().needs_independent_rows]


def config_names(folder: Path) -> List[str]:
    """The names of a folder's experiments; those with a transformer have tests of their own."""
    return sorted(path.stem for path in folder.glob("*.jsonnet") if path.stem != "transformer")


def some_estimators(start: int) -> List[str]:
    """Every third one: which of them a model trains with is shared between three tasks, for the sake of time."""
    return STRUCTURED_ESTIMATORS[start::3]


def check_an_estimator_each(folder: Path, others: Set[str]) -> None:
    """That the config of the latent structure takes every estimator by its name; `others` are the other configs."""
    assert set(config_names(folder)) == {"latent"} | others
    for name in [*STRUCTURED_ESTIMATORS, "of_a_plugin"]:
        config = Params.from_file(str(folder / "latent.jsonnet"), ext_vars={"SPIGOT_ESTIMATOR": name})
        assert config["model"]["estimator"]["type"] == name
        if name in ESTIMATORS:
            Estimator.from_params(config["model"]["estimator"])
