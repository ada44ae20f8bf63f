import pytest

from tests.conftest import PROJECT_ROOT


@pytest.fixture(autouse=True)
def from_the_root_of_the_project(monkeypatch):
    """What the configs name without the help of variables, they name from there."""
    monkeypatch.chdir(PROJECT_ROOT)
