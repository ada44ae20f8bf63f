import os
from pathlib import Path

import pytest


@pytest.fixture(params=["train", "dev"])
def ewt_path(request):
    """A file of UD English EWT, where there is one (see `SPIGOT_DATA`)."""
    folder = os.environ.get("SPIGOT_DATA", Path(__file__).parents[3] / "shared" / "data")
    path = Path(folder) / "ud_ewt" / f"{request.param}.conllu"
    if not path.exists():
        pytest.skip(f"no treebank at {path}; set SPIGOT_DATA to the folder that holds ud_ewt/")
    return path
