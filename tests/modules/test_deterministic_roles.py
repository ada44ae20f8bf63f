import json
from datetime import timedelta
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from allennlp.common.checks import ConfigurationError
from allennlp.data import Vocabulary

from spigot_allennlp.modules import DeterministicRoles, Relations

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
    roles = DeterministicRoles(Relations(vocab, "arc_relations"), "observed")
    assert roles().tolist() == [False] * 3
    roles.observe(None)
    # Two top nodes, two unknown labels, two agents of different predicates, and of different sentences.
    first = graph((1, 0, 0), (2, 0, 0), (3, 2, 1), (4, 2, 1), (1, 2, "agent"), (2, 3, "agent"), (4, 3, "modifier"))
    roles.observe(torch.cat([first, graph((1, 3, "agent"))]))
    assert roles().tolist() == [True, False, True]
    roles.observe(graph((1, 4, "modifier"), (2, 4, "modifier"), (3, 4, "patient")))
    assert roles().tolist() == [True, True, False]
    roles.observe(graph((1, 4, "modifier")))
    other = DeterministicRoles(Relations(vocab, "arc_relations"), "observed")
    other.load_state_dict(roles.state_dict())
    assert other().tolist() == [True, True, False]


def test_given(vocab):
    roles = DeterministicRoles(Relations(vocab, "arc_relations"), ["patient"])
    roles.observe(graph((1, 4, "patient"), (2, 4, "patient"), (3, 4, "agent")))
    assert roles().tolist() == [False, True, False]


def work(rank: int, folder: str) -> None:
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2, timeout=timedelta(seconds=60)
    )
    vocab = Vocabulary()
    for label in LABELS:
        vocab.add_token_to_namespace(label, "arc_relations")
    roles = DeterministicRoles(Relations(vocab, "arc_relations"), "observed")
    twice = graph((1, 4, "modifier"), (2, 4, "modifier"), (3, 4, "patient"))
    with patch("spigot_allennlp.modules.deterministic_roles.is_distributed", lambda: True):
        # One has no graphs in its batch.
        for step in ((twice, None), (None, graph((1, 3, "agent")))):
            roles.observe(step[rank])
    (Path(folder) / f"{rank}.json").write_text(json.dumps(roles().tolist()))
    torch.distributed.destroy_process_group()


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch was built without it")
def test_workers_share_what_they_see(tmp_path: Path):
    torch.multiprocessing.start_processes(work, args=(str(tmp_path),), nprocs=2, start_method="fork")
    assert [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)] == [[True, True, False]] * 2


@pytest.mark.parametrize(
    "roles, message",
    [
        ("observe", "deterministic_roles is 'observe'; valid: 'observed', or a list of labels"),
        (
            ["agent", "goal"],
            "deterministic_roles has 'goal', which no graph of the data has; valid: agent, patient, mod",
        ),
        (["@@UNKNOWN@@"], "deterministic_roles has '@@UNKNOWN@@'"),
    ],
)
def test_refusals(vocab, roles, message):
    with pytest.raises(ConfigurationError) as error:
        DeterministicRoles(Relations(vocab, "arc_relations"), roles)
    assert message in str(error.value)
