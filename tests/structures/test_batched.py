"""The template suite of the structures whose operations have batched paths, on these paths."""

import pytest

from tests.enumeration import CASES
from tests.structures.tree_test_case import ExactProjectionTestCase

pytestmark = pytest.mark.usefixtures("batched_paths")


class TestProjectiveTree(ExactProjectionTestCase):
    case = CASES["projective_tree"]


class TestMultiRootNonprojectiveTree(ExactProjectionTestCase):
    case = CASES["nonprojective_tree_multi_root"]
