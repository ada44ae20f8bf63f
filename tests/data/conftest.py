import pytest


@pytest.fixture(params=["train", "dev"])
def ewt_path(request, shared_data):
    """A file of UD English EWT, where there is one (see `shared_data`)."""
    path = shared_data / "ud_ewt" / f"{request.param}.conllu"
    if not path.exists():
        pytest.skip(f"no treebank at {path}; set SPIGOT_DATA to the folder that holds ud_ewt/")
    return path
