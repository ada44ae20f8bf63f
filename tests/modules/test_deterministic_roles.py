import pytest
import torch
from allennlp.common.checks import ConfigurationError
from allennlp.data import Vocabulary

from spigot_allennlp.modules import DeterministicRoles

LABELS = ("agent", "patient", "modifier")


@pytest.fixture
def vocab() -> Vocabulary:
    vocab = Vocabulary()
    for label in LABELS:
        vocab.add_token_to_namespace(label, "arc_relations")
    return vocab


def graph(*arcs) -> torch.Tensor:
    """`(dependent, head, label)`, in a batch of one."""
    gold = torch.full((1, 5, 5), -1)
    for dependent, head, label in arcs:
        gold[0, dependent, head] = LABELS.index(label) + 2 if label in LABELS else int(label)
    return gold


def test_observed(vocab):
    roles = DeterministicRoles(vocab, "arc_relations", "observed")
    assert roles().tolist() == [False] * 3
    roles.observe(None)
    # Two top nodes, two unknown labels, two agents of different predicates, and of different sentences.
    first = graph((1, 0, 0), (2, 0, 0), (3, 2, 1), (4, 2, 1), (1, 2, "agent"), (2, 3, "agent"), (4, 3, "modifier"))
    roles.observe(torch.cat([first, graph((1, 3, "agent"))]))
    assert roles().tolist() == [True, False, True]
    roles.observe(graph((1, 4, "modifier"), (2, 4, "modifier"), (3, 4, "patient")))
    assert roles().tolist() == [True, True, False]
    roles.observe(graph((1, 4, "modifier")))
    other = DeterministicRoles(vocab, "arc_relations", "observed")
    other.load_state_dict(roles.state_dict())
    assert other().tolist() == [True, True, False]


def test_given(vocab):
    roles = DeterministicRoles(vocab, "arc_relations", ["patient"])
    roles.observe(graph((1, 4, "patient"), (2, 4, "patient"), (3, 4, "agent")))
    assert roles().tolist() == [False, True, False]


@pytest.mark.parametrize(
    "roles, message",
    [
        ("observe", "deterministic_roles is 'observe'; valid: 'observed', or a list of labels"),
        (["agent", "goal"], "deterministic_roles has 'goal', which no graph of the data has; valid: agent, patient, mod"),
        (["@@UNKNOWN@@"], "deterministic_roles has '@@UNKNOWN@@'"),
    ],
)
def test_refusals(vocab, roles, message):
    with pytest.raises(ConfigurationError) as error:
        DeterministicRoles(vocab, "arc_relations", roles)
    assert message in str(error.value)
