from tests.enumeration import CASES
from tests.structures.tree_test_case import ExactProjectionTestCase


class TestNonprojectiveTree(ExactProjectionTestCase):
    case = CASES["nonprojective_tree"]


class TestMultiRootNonprojectiveTree(ExactProjectionTestCase):
    case = CASES["nonprojective_tree_multi_root"]
