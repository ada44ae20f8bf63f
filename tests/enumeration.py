"""
Brute force: every structure of a small feasible set, and from the list of them everything that the package
computes by dynamic programming, determinants or active sets. Slow, in float64, and as plain as it can be: the
rest is tested against it.

`tokens` is the number of true positions of a mask's row; for arcs it counts ROOT, for `categorical` it is the
number of options. `0` is an all-padding row, whose one structure is the empty one.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Optional

import numpy as np
import torch
from scipy.optimize import nnls

# --------------------------------------------------------------------------------------------------
# Feasible sets, each as a tensor (number of structures, *shape of the parts)
# --------------------------------------------------------------------------------------------------


def head_assignments(tokens: int) -> list[tuple[int, ...]]:
    """All ways to give each of `tokens - 1` words a head other than itself; 0 is ROOT."""
    words = range(1, tokens)
    return list(itertools.product(*[[h for h in range(tokens) if h != word] for word in words]))


def is_tree(heads: Sequence[int]) -> bool:
    """From every word, following the heads leads to ROOT. `heads[i]` is the head of word `i + 1`."""
    for word in range(1, len(heads) + 1):
        seen = set()
        while word != 0:
            if word in seen:
                return False
            seen.add(word)
            word = heads[word - 1]
    return True


def is_projective(heads: Sequence[int]) -> bool:
    """No two arcs cross when drawn above the sentence, ROOT at its left end."""
    arcs = [tuple(sorted((word, head))) for word, head in enumerate(heads, start=1)]
    return not any(a < c < b < d for (a, b), (c, d) in itertools.permutations(arcs, 2))


def has_one_root(heads: Sequence[int]) -> bool:
    return len(heads) == 0 or sum(head == 0 for head in heads) == 1


def _arcs(assignments: Sequence[Sequence[int]], tokens: int) -> torch.Tensor:
    vertices = torch.zeros(len(assignments), tokens, tokens, dtype=torch.float64)
    for index, heads in enumerate(assignments):
        for word, head in enumerate(heads, start=1):
            vertices[index, word, head] = 1
    return vertices


@lru_cache(maxsize=None)
def single_heads(tokens: int) -> torch.Tensor:
    return _arcs(head_assignments(tokens) if tokens else [()], tokens)


@lru_cache(maxsize=None)
def trees(tokens: int, projective: bool, single_root: bool) -> torch.Tensor:
    chosen = [
        heads
        for heads in (head_assignments(tokens) if tokens else [()])
        if is_tree(heads) and (is_projective(heads) or not projective) and (has_one_root(heads) or not single_root)
    ]
    return _arcs(chosen, tokens)


@lru_cache(maxsize=None)
def arc_graphs(tokens: int, max_heads: Optional[int] = None) -> torch.Tensor:
    """Any set of arcs to words; at most `max_heads` of them to any one word."""
    arcs = [(word, head) for word in range(1, tokens) for head in range(tokens) if head != word]
    vertices = []
    for values in itertools.product((0.0, 1.0), repeat=len(arcs)):
        vertex = torch.zeros(tokens, tokens, dtype=torch.float64)
        for arc, value in zip(arcs, values, strict=True):
            vertex[arc] = value
        if max_heads is None or not len(arcs) or vertex.sum(1).max() <= max_heads:
            vertices.append(vertex)
    return torch.stack(vertices)


@lru_cache(maxsize=None)
def labeled_arc_graphs(tokens: int, labels: int) -> torch.Tensor:
    """Any set of arcs to words, each with one of `labels` labels: part 0 is the arc, then come its labels."""
    arcs = [(word, head) for word in range(1, tokens) for head in range(tokens) if head != word]
    vertices = []
    for values in itertools.product([None, *range(labels)], repeat=len(arcs)):
        vertex = torch.zeros(tokens, tokens, 1 + labels, dtype=torch.float64)
        for arc, label in zip(arcs, values, strict=True):
            if label is not None:
                vertex[arc][0] = vertex[arc][1 + label] = 1
        vertices.append(vertex)
    return torch.stack(vertices)


@lru_cache(maxsize=None)
def tag_sequences(tokens: int, tags: int) -> torch.Tensor:
    """All tag sequences. Part `[t, i, j]`: tag `i` at `t - 1`, tag `j` at `t`; tag 0 precedes the first."""
    vertices = []
    for sequence in itertools.product(range(tags), repeat=tokens):
        vertex = torch.zeros(tokens, tags, tags, dtype=torch.float64)
        for position, (previous, tag) in enumerate(zip((0, *sequence), sequence, strict=False)):
            vertex[position, previous, tag] = 1
        vertices.append(vertex)
    return torch.stack(vertices)


@lru_cache(maxsize=None)
def categories(options: int) -> torch.Tensor:
    return torch.eye(options, dtype=torch.float64) if options else torch.zeros(1, 0, dtype=torch.float64)


@lru_cache(maxsize=None)
def subsets(options: int, smallest: int, largest: int) -> torch.Tensor:
    """All subsets of some sizes; of no options there is the empty one."""
    vertices = [
        v for v in itertools.product((0.0, 1.0), repeat=options) if smallest <= sum(v) <= largest or not options
    ]
    return torch.tensor(vertices, dtype=torch.float64).view(len(vertices), options)


@lru_cache(maxsize=None)
def segmentations(tokens: int, lengths: int, labels: int) -> torch.Tensor:
    """Part `[t, l, i, j]`: from t on, l + 1 tokens with label j, after a segment with label i; 0 precedes the first."""

    def extended(start: int, previous: int) -> list[list[tuple[int, int, int, int]]]:
        if start == tokens:
            return [[]]
        return [
            [(start, length, previous, label), *rest]
            for length in range(min(lengths, tokens - start))
            for label in range(labels)
            for rest in extended(start + length + 1, label)
        ]

    segmented = extended(0, 0)
    vertices = torch.zeros(len(segmented), tokens, lengths, labels, labels, dtype=torch.float64)
    for vertex, segments in zip(vertices, segmented, strict=True):
        for segment in segments:
            vertex[segment] = 1
    return vertices


@lru_cache(maxsize=None)
def bracketings(tokens: int) -> torch.Tensor:
    """All binary trees over the tokens, as the set of their spans `[first, last]`."""

    def spans(first: int, last: int) -> list[list[tuple[int, int]]]:
        if first == last:
            return [[(first, last)]]
        return [
            [(first, last), *left, *right]
            for split in range(first, last)
            for left in spans(first, split)
            for right in spans(split + 1, last)
        ]

    trees = spans(0, tokens - 1) if tokens else [[]]
    vertices = torch.zeros(len(trees), tokens, tokens, dtype=torch.float64)
    for vertex, tree in zip(vertices, trees, strict=True):
        for span in tree:
            vertex[span] = 1
    return vertices


def undirected_trees(tokens: int) -> torch.Tensor:
    """All spanning trees, each once: directed away from token 0, and back."""
    arcs = trees(tokens, projective=False, single_root=False)
    return arcs + arcs.mT


def _labeled(arcs: torch.Tensor, labels: int) -> torch.Tensor:
    """All ways to give each word's arc one label."""
    tokens = arcs.size(-1)
    vertices = []
    for tree in arcs:
        for chosen in itertools.product(range(labels), repeat=max(tokens - 1, 0)):
            vertex = torch.zeros(tokens, tokens, labels, dtype=torch.float64)
            for word, label in enumerate(chosen, start=1):
                vertex[word, :, label] = tree[word]
            vertices.append(vertex)
    return torch.stack(vertices)


@lru_cache(maxsize=None)
def labeled_trees(tokens: int, projective: bool, single_root: bool, labels: int) -> torch.Tensor:
    return _labeled(trees(tokens, projective, single_root), labels)


@lru_cache(maxsize=None)
def labeled_single_heads(tokens: int) -> torch.Tensor:
    return _labeled(single_heads(tokens), LABELS)


# --------------------------------------------------------------------------------------------------
# What follows from the list
# --------------------------------------------------------------------------------------------------


class Oracle:
    """
    Everything about one instance, from the list of its structures. Differentiable in `scores` by autograd.

    # Parameters

    vertices : `torch.Tensor`
        Shape (number of structures, *parts), 0/1.
    scores : `torch.Tensor`
        Shape (*parts); -inf forbids a part, and what stands at parts that no structure uses is ignored.
    """

    def __init__(self, vertices: torch.Tensor, scores: torch.Tensor) -> None:
        forbidden = scores.detach() == -float("inf")
        feasible = ~((vertices > 0) & forbidden).flatten(1).any(1)
        if not feasible.any():
            raise ValueError("No structure avoids the forbidden parts.")
        self.vertices = vertices[feasible]
        self._flat = self.vertices.flatten(1)
        self._used = (self._flat > 0).any(0)
        # (number of structures,)
        self.scores = self._flat @ self._finite(scores)

    def _finite(self, point: torch.Tensor) -> torch.Tensor:
        point = point.to(torch.float64).flatten()
        return torch.where(self._used, point, torch.zeros_like(point))

    def is_vertex(self, structure: torch.Tensor) -> bool:
        return bool((self._flat == structure.detach().to(torch.float64).flatten()).all(1).any())

    def best_score(self) -> float:
        return self.scores.max().item()

    def argmax(self) -> torch.Tensor:
        return self.vertices[self.scores.argmax()]

    def log_partition(self) -> torch.Tensor:
        return self.scores.logsumexp(0)

    def log_probabilities(self) -> torch.Tensor:
        return self.scores - self.log_partition()

    def marginals(self) -> torch.Tensor:
        return (self.log_probabilities().exp() @ self._flat).reshape(self.vertices.shape[1:])

    def entropy(self) -> torch.Tensor:
        log_probabilities = self.log_probabilities()
        return -(log_probabilities.exp() * log_probabilities).sum()

    def top_scores(self, k: int) -> torch.Tensor:
        """The `k` best scores in order, -inf where there are fewer structures."""
        scores = self.scores.sort(descending=True).values[:k]
        return torch.cat([scores, scores.new_full((k - len(scores),), -float("inf"))])

    def project(self, point: torch.Tensor) -> torch.Tensor:
        """
        `argmin_{m in conv(vertices)} ||m - point||^2`. Where the point is -inf, the part is forbidden if the
        scores of the constructor say so: pass the point there, too.

        With the columns of P the vertices minus the point, `w = argmin_{w >= 0} ||P w||^2 + (1'w - 1)^2` is,
        once normalised, the minimiser of `||P w||` over the simplex: for `w = t u` with u in the simplex the
        best t gives `||P u||^2 / (1 + ||P u||^2)`, which grows with `||P u||`.
        """
        flat = self._flat.numpy()
        point = self._finite(point.detach()).numpy()
        differences = (flat - point).T
        scale = max(1.0, float(np.abs(differences).max()))
        system = np.vstack([differences / scale, np.ones(len(flat))])
        weights, _ = nnls(system, np.concatenate([np.zeros(len(point)), [1.0]]), maxiter=100 * len(flat) + 100)
        projection = flat.T @ (weights / weights.sum())
        gap = (flat @ (point - projection)).max() - projection @ (point - projection)
        assert gap <= 1e-9 * scale**2, f"the oracle itself did not converge: duality gap {gap}"
        return torch.from_numpy(projection).reshape(self.vertices.shape[1:])

    def project_jacobian(self, point: torch.Tensor) -> torch.Tensor:
        """
        The derivative of the projection away from its kinks: the orthogonal projector onto the directions of
        the smallest face that holds it: that of the vertices which maximise `<point - projection, .>`.
        """
        projection = self.project(point)
        values = self._flat @ (self._finite(point) - projection.flatten())
        face = self._flat[values >= values.max() - 1e-7]
        _, singular, directions = torch.linalg.svd(face - face[0], full_matrices=False)
        directions = directions[singular > 1e-9]
        return directions.T @ directions


@dataclass(frozen=True)
class Case:
    """
    A structure's configuration beside the enumeration of its feasible set.

    # Parameters

    params : `Dict[str, Any]`
        What `LatentStructure.from_params` gets.
    shape : `Callable[[int], Tuple[int, ...]]`
        The shape of one instance's parts, from the (padded) number of tokens.
    vertices : `Callable[[int], torch.Tensor]`
        The feasible set, from the number of tokens.
    hull : `Callable[[int], torch.Tensor]`
        The vertices of the set that `project` maps to; not the feasible set where the projection is relaxed.
    max_tokens : `int`
        How far enumeration is affordable.
    min_tokens : `int`
        The fewest tokens that an instance with any has.
    """

    params: dict[str, Any]
    shape: Callable[[int], tuple[int, ...]]
    vertices: Callable[[int], torch.Tensor]
    hull: Callable[[int], torch.Tensor]
    max_tokens: int
    min_tokens: int = 1

    def padded(self, vertices: torch.Tensor, width: int) -> torch.Tensor:
        padded = torch.zeros(len(vertices), *self.shape(width), dtype=vertices.dtype)
        padded[tuple(slice(size) for size in vertices.shape)] = vertices
        return padded

    def compact(self, parts: torch.Tensor, tokens: int) -> torch.Tensor:
        """The parts of one instance of `tokens` tokens without its padding; leading dimensions are kept."""
        shape = self.shape(tokens)
        return parts[(..., *(slice(size) for size in shape))]

    def oracle(self, scores: torch.Tensor, tokens: int) -> Oracle:
        """For the padded `scores` of one instance."""
        return Oracle(self.padded(self.vertices(tokens), len(scores)), scores)

    def hull_oracle(self, point: torch.Tensor, tokens: int) -> Oracle:
        return Oracle(self.padded(self.hull(tokens), len(point)), point)

    def project(self, point: torch.Tensor, tokens: int) -> torch.Tensor:
        return self.hull_oracle(point, tokens).project(point)

    def legal(self, tokens: int, width: int) -> torch.Tensor:
        """Which parts exist: those of the feasible set's structures."""
        return (self.padded(self.vertices(tokens), width) > 0).any(0)


class BatchOracle:
    """The maps from scores to parts for a padded batch, each instance by brute force."""

    def __init__(self, case: Case, tokens: list[int], width: int) -> None:
        self.case = case
        self.tokens = tokens
        self.legal = torch.stack([case.legal(number, width) for number in tokens])

    def _each(self, compute: Callable, *batches: torch.Tensor) -> torch.Tensor:
        return torch.stack([compute(*rows) for rows in zip(self.tokens, *batches, strict=True)])

    def argmax(self, scores: torch.Tensor) -> torch.Tensor:
        return self._each(lambda tokens, row: self.case.oracle(row, tokens).argmax(), scores)

    def marginals(self, scores: torch.Tensor) -> torch.Tensor:
        return self._each(lambda tokens, row: self.case.oracle(row, tokens).marginals(), scores)

    def project(self, points: torch.Tensor) -> torch.Tensor:
        return self._each(lambda tokens, row: self.case.project(row, tokens), points)

    def project_gradient(self, points: torch.Tensor, cotangents: torch.Tensor) -> torch.Tensor:
        """The projection's Jacobian, transposed (it is symmetric), times the `cotangents`."""

        def one(tokens: int, row: torch.Tensor, cotangent: torch.Tensor) -> torch.Tensor:
            jacobian = self.case.hull_oracle(row, tokens).project_jacobian(row)
            return (jacobian @ cotangent.flatten()).view_as(cotangent)

        return self._each(one, points, cotangents)


LABELS = 2
TAGS = 3
LENGTHS = 2


def _square(tokens: int) -> tuple[int, ...]:
    return (tokens, tokens)


def _case(
    params: dict[str, Any],
    vertices: Callable[[int], torch.Tensor],
    hull: Optional[Callable[[int], torch.Tensor]] = None,
    shape: Callable[[int], tuple[int, ...]] = _square,
    max_tokens: int = 5,
    min_tokens: int = 1,
) -> Case:
    return Case(params, shape, vertices, hull or vertices, max_tokens, min_tokens)


def _tree_case(projective: bool, single_root: bool, **params: Any) -> Case:
    name = "projective_tree" if projective else "nonprojective_tree"
    return _case(
        {"type": name, "single_root": single_root, **params},
        lambda tokens: trees(tokens, projective, single_root),
        hull=single_heads if params.get("projection") == "single_head" else None,
    )


def _labeled_tree_case(projective: bool, single_root: bool, **params: Any) -> Case:
    name = "projective_tree" if projective else "nonprojective_tree"
    return _case(
        {"type": name, "single_root": single_root, "num_labels": LABELS, **params},
        lambda tokens: labeled_trees(tokens, projective, single_root, LABELS),
        hull=labeled_single_heads if params.get("projection") == "single_head" else None,
        shape=lambda tokens: (tokens, tokens, LABELS),
        max_tokens=4,
    )


CASES: dict[str, Case] = {
    "categorical": _case({"type": "categorical"}, categories, shape=lambda options: (options,)),
    "single_head": _case({"type": "single_head"}, single_heads),
    "projective_tree": _tree_case(projective=True, single_root=True),
    "projective_tree_multi_root": _tree_case(projective=True, single_root=False),
    "projective_tree_relaxed": _tree_case(projective=True, single_root=True, projection="single_head"),
    "nonprojective_tree": _tree_case(projective=False, single_root=True),
    "nonprojective_tree_multi_root": _tree_case(projective=False, single_root=False),
    "arc_graph": _case({"type": "arc_graph"}, arc_graphs, max_tokens=4),
    "arc_graph_one_head": _case(
        {"type": "arc_graph", "max_heads": 1}, lambda tokens: arc_graphs(tokens, 1), max_tokens=4
    ),
    "arc_graph_two_heads": _case(
        {"type": "arc_graph", "max_heads": 2}, lambda tokens: arc_graphs(tokens, 2), max_tokens=4
    ),
    "linear_chain": _case(
        {"type": "linear_chain"},
        lambda tokens: tag_sequences(tokens, TAGS),
        shape=lambda tokens: (tokens, TAGS, TAGS),
        max_tokens=4,
    ),
    "labeled_arc_graph": _case(
        {"type": "labeled_arc_graph", "projection": "joint"},
        lambda tokens: labeled_arc_graphs(tokens, LABELS),
        shape=lambda tokens: (tokens, tokens, 1 + LABELS),
        max_tokens=3,
    ),
    "labeled_projective_tree": _labeled_tree_case(projective=True, single_root=True),
    "labeled_nonprojective_tree": _labeled_tree_case(projective=False, single_root=False),
    "labeled_projective_tree_relaxed": _labeled_tree_case(projective=True, single_root=True, projection="single_head"),
    "k_subset": _case(
        {"type": "k_subset", "k": 2},
        lambda options: subsets(options, 2, 2),
        shape=lambda options: (options,),
        min_tokens=2,
    ),
    "k_subset_at_most": _case(
        {"type": "k_subset", "k": 2, "exactly": False},
        lambda options: subsets(options, 0, 2),
        shape=lambda options: (options,),
    ),
    "semi_markov": _case(
        {"type": "semi_markov"},
        lambda tokens: segmentations(tokens, LENGTHS, LABELS),
        shape=lambda tokens: (tokens, LENGTHS, LABELS, LABELS),
        max_tokens=4,
    ),
    "constituency_tree": _case({"type": "constituency_tree"}, bracketings),
    "undirected_tree": _case({"type": "undirected_tree"}, undirected_trees),
}
