from tests.enumeration import CASES
from tests.structures.tree_test_case import ExactProjectionTestCase, TreeTestCase


class TestProjectiveTree(ExactProjectionTestCase):
    case = CASES["projective_tree"]


class TestMultiRootProjectiveTree(ExactProjectionTestCase):
    case = CASES["projective_tree_multi_root"]


class TestRelaxedProjectiveTree(TreeTestCase):
    case = CASES["projective_tree_relaxed"]
