"""Constrained MAP of labelled graphs against the enumeration of all of them."""

from itertools import product
from typing import Iterator, Optional, Tuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spigot_allennlp.functional.labeled_graphs import best_connected_graph, best_graph
from spigot_allennlp.functional.trees import legal_arcs


def graphs_of_a_head(num_dependents: int, num_labels: int) -> Iterator[Tuple[int, ...]]:
    """All label assignments to the dependents of one head; -1 without an arc."""
    return product(range(-1, num_labels), repeat=num_dependents)


def allowed(labels: Tuple[int, ...], deterministic: Optional[torch.Tensor]) -> bool:
    if deterministic is None:
        return True
    return all(labels.count(role) <= 1 for role in deterministic.nonzero().flatten().tolist())


def value(labels: torch.Tensor, predicates: torch.Tensor, scores: torch.Tensor, predicate_scores=None) -> torch.Tensor:
    """The score of one graph `(dependents, heads)`."""
    arcs = scores.gather(-1, labels.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    total = torch.where(labels >= 0, arcs, 0.0).sum()
    return total if predicate_scores is None else total + torch.where(predicates, predicate_scores, 0.0).sum()


@given(
    seed=st.integers(0, 2**20),
    num_labels=st.integers(1, 3),
    roles=st.sampled_from(["none", "some", "all"]),
    with_predicates=st.booleans(),
    dtype=st.sampled_from([torch.float, torch.double]),
    scale=st.sampled_from([0.0, 1.0, 1e4]),
)
def test_brute_force(seed, num_labels, roles, with_predicates, dtype, scale):
    generator = torch.Generator().manual_seed(seed)
    batch, tokens = 2, 3
    # Mostly positive, so that roles are in demand.
    scores = scale * (torch.randn(batch, tokens, tokens, num_labels, generator=generator, dtype=dtype) + 0.7)
    scores[torch.rand(scores.shape, generator=generator) < 0.2] = -torch.inf
    predicate_scores = scale * torch.randn(batch, tokens, generator=generator, dtype=dtype) if with_predicates else None
    deterministic = None if roles == "none" else torch.ones(num_labels, dtype=torch.bool)
    if roles == "some":
        deterministic = torch.rand(num_labels, generator=generator) < 0.5
    before = scores.clone()
    found = best_graph(scores, predicate_scores, deterministic)
    assert torch.equal(scores, before)
    for b in range(batch):
        best = 0.0
        for h in range(tokens):
            candidates = [0.0]
            for labels in graphs_of_a_head(tokens, num_labels):
                if h == 0 or allowed(labels, deterministic):
                    total = sum(scores[b, d, h, label].item() for d, label in enumerate(labels) if label >= 0)
                    candidates.append(total + (predicate_scores[b, h].item() if with_predicates else 0.0))
            best += max(candidates)
            if h > 0:
                assert allowed(tuple(found.labels[b, :, h].tolist()), deterministic)
        assert (found.predicates[b] | (found.labels[b] < 0).all(0)).all()
        of_predicates = predicate_scores[b] if with_predicates else None
        reached = value(found.labels[b], found.predicates[b], scores[b], of_predicates)
        assert reached.item() == pytest.approx(best, rel=1e-5, abs=1e-5)


def test_an_arc_needs_its_predicate():
    scores = torch.tensor([0.5, 1.0, -1.0]).view(1, 3, 1, 1).expand(1, 3, 2, 1)
    found = best_graph(scores, torch.tensor([[-1.4, -1.6]]))
    assert found.predicates.tolist() == [[True, False]]
    assert found.labels[0].tolist() == [[0, -1], [0, -1], [-1, -1]]


def test_a_role_goes_to_who_gains_most_by_it():
    """The best argument of the role is not the one that would lose least without it."""
    scores = torch.full((1, 2, 2, 2), -torch.inf)
    scores[0, :, 1] = torch.tensor([[3.0, 2.5], [2.0, -1.0]])
    assert best_graph(scores, None, torch.tensor([True, False])).labels[0, :, 1].tolist() == [1, 0]
    # Several top nodes, though.
    scores = torch.ones(1, 2, 2, 1)
    found = best_graph(scores, None, torch.tensor([True])).labels[0]
    assert found[:, 0].tolist() == [0, 0] and sorted(found[:, 1].tolist()) == [-1, 0]


def test_nothing_is_chosen_at_a_score_of_0():
    assert (best_graph(torch.zeros(1, 2, 2, 2)).labels == -1).all()


def reachable(arcs: torch.Tensor) -> bool:
    """Whether all tokens of one graph `(dependents, heads)` can be reached from ROOT."""
    found = torch.zeros(len(arcs), dtype=torch.bool)
    found[0] = True
    for _ in range(len(arcs)):
        found = found | (arcs & found).any(-1)
    return bool(found.all())


@given(
    seed=st.integers(0, 2**20),
    lengths=st.lists(st.integers(0, 3), min_size=1, max_size=3),
    offset=st.sampled_from([-3.0, -1.0, 0.0, 1.0]),
    dtype=st.sampled_from([torch.float, torch.double]),
    scale=st.sampled_from([0.0, 1.0, 1e4]),
    forbidden=st.booleans(),
)
def test_connected_graphs_brute_force(seed, lengths, offset, dtype, scale, forbidden):
    generator = torch.Generator().manual_seed(seed)
    size = max(lengths) + 1
    scores = scale * (torch.randn(len(lengths), size, size, generator=generator, dtype=dtype) + offset)
    if forbidden:
        scores[torch.rand(scores.shape, generator=generator) < 0.4] = -torch.inf
    mask = torch.arange(size) <= torch.tensor(lengths).unsqueeze(-1)
    found = best_connected_graph(scores, mask)
    assert not (found & ~legal_arcs(mask)).any()
    for graph, row, length in zip(found, scores, lengths):
        graph, row = graph[: length + 1, : length + 1], row[: length + 1, : length + 1]
        assert reachable(graph)
        pairs = [(d, h) for d in range(1, length + 1) for h in range(length + 1) if d != h]
        best = -torch.inf
        for chosen in product([False, True], repeat=len(pairs)):
            other = torch.zeros_like(graph)
            for pair, present in zip(pairs, chosen):
                other[pair] = present
            if reachable(other):
                best = max(best, row[other].sum().item())
        assert row[graph].sum().item() == pytest.approx(best, rel=1e-5, abs=1e-5 * scale) or best == -torch.inf


def test_a_graph_that_is_connected_anyway_stays_as_it_is():
    scores = torch.full((1, 4, 4), -1.0)
    for arc in ((1, 2), (2, 0), (3, 2), (1, 3), (2, 3)):
        scores[(0, *arc)] = 0.5
    assert torch.equal(best_connected_graph(scores, torch.ones(1, 4, dtype=torch.bool)), scores > 0)
