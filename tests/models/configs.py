"""What the tests of several tasks' configs share."""

from pathlib import Path
from typing import List, Set

from allennlp.common import Params

from spigot_allennlp.estimators import Estimator


def config_names(folder: Path) -> List[str]:
    """The names of a folder's experiments; those with a transformer have tests of their own."""
    return sorted(path.stem for path in folder.glob("*.jsonnet") if path.stem != "transformer")


def check_an_estimator_each(folder: Path, without: Set[str]) -> None:
    """That every estimator has a config which bears its name; those in `without` are no estimators'."""
    estimators = {
        name for name in Estimator.list_available() if Estimator.by_name(name).__module__.startswith("spigot_allennlp.")
    }
    assert set(config_names(folder)) == estimators | without
    for name in estimators:
        estimator = Params.from_file(str(folder / f"{name}.jsonnet")).as_dict()["model"]["estimator"]
        assert (estimator if isinstance(estimator, str) else estimator["type"]) == name
