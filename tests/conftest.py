"""
Settings and fixtures for the whole suite.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from spigot_allennlp.functional import routes

PROJECT_ROOT = Path(__file__).resolve().parent.parent
FIXTURES = PROJECT_ROOT / "fixtures"

# The same examples in every run, so that a failure in CI is seen again at a desk, and no deadline: the first call of a
# kernel compiles it. HYPOTHESIS_PROFILE=explore looks for new examples.
settings.register_profile("reproducible", derandomize=True, deadline=None, database=None)
settings.register_profile("explore", deadline=None, max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "reproducible"))

# The tensors of the tests are small: more threads only wait for each other, all the more where tests start processes.
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """
    The directory with the real data sets (`ud_ewt/`, `sst/`), which are no part of the repository.
    """
    directory = Path(os.environ.get("SPIGOT_DATA", PROJECT_ROOT.parent / "shared" / "data"))
    if not directory.is_dir():
        pytest.skip(f"needs the real data sets; {directory} does not exist (SPIGOT_DATA names another place)")
    return directory


@pytest.fixture(scope="class")
def batched_paths() -> Iterator[None]:
    """
    Scores take the batched paths, which are otherwise for GPUs, wherever there is one; not where there is nothing to
    do, as the rule never says so.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(routes, "batched_on_device", lambda operation, scores: scores.numel() > 0)
        yield
