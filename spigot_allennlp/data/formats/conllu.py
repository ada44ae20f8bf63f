"""
CoNLL-U (https://universaldependencies.org/format.html): ten tab-separated columns, basic trees in HEAD and
DEPREL, enhanced graphs in DEPS.

The `conllu` library does not serve here: it knows no line numbers, lets malformed lines pass (missing
columns, heads out of range), and spends most of the time that reading may take on columns that we only carry
along. The tests compare with it.
"""

import logging
import re
from collections.abc import Iterable, Iterator
from typing import Optional

from allennlp.common.checks import ConfigurationError

from spigot_allennlp.checks import one_of
from spigot_allennlp.data.sentence import ABSENT, PARALLEL, PATH, Sentence, coarse_label
from spigot_allennlp.data.text_files import (
    SentenceIds,
    blocks,
    check_writable,
    checked_for_consistency,
    cut,
    head_problem,
    join_columns,
    join_comments,
    malformed,
    parse_tree,
    positions,
    shorten,
    token_number_problem,
    wrong_columns,
)

logger = logging.getLogger(__name__)

EMPTY_GRAPH = "# graph = empty"
"""Our own comment: without it, a graph without edges could not be told from no graph."""

# Of what is collapsed into one edge. In treebanks there are a handful.
_MAX_PATH_STEPS = 10_000
_MAX_PATH_LENGTH = 100
_RANGE = re.compile("([1-9][0-9]{0,8})-([1-9][0-9]{0,8})")
_ABSENT_GRAPHS_HINT = (
    ", or set the dataset reader's absent_graphs to 'empty' (a sentence without edges in DEPS then has an empty "
    "graph), or its graphs to false"
)
_COLUMNS = "ten: ID FORM LEMMA UPOS XPOS FEATS HEAD DEPREL DEPS MISC"

# The edges into a node as DEPS has them: (head, label).
_Edges = list[tuple[str, str]]


def parse_conllu(
    lines: Iterable[str],
    file_path: str,
    empty_nodes: str = "collapse",
    labels: str = "full",
    trees: bool = True,
    graphs: bool = True,
    absent_graphs: str = "refuse",
) -> Iterator[Sentence]:
    """
    # Parameters

    lines : `Iterable[str]`
        Lines of the file.
    file_path : `str`
        Path that errors name.
    empty_nodes : `str`, optional (default = `"collapse"`)
        Treatment of empty nodes (`8.1`). `"collapse"` replaces every path between words (or from ROOT) through empty
        nodes, none of them twice, by one edge. Its label joins the labels of the path, `conj:and>nsubj`, as in the IWPT
        2020 and 2021 evaluations (`enhanced_collapse_empty_nodes.pl` of the UD tools; on cycles of empty nodes alone,
        what that makes of them depends on their order). Paths from a word to itself become `loops`, which are no arcs
        of the graph, with a warning. What hangs on an empty node without dependents is lost with that node. `"drop"`
        removes empty nodes and every edge from or to them.
    labels : `str`, optional (default = `"full"`)
        `"coarse"` cuts the labels of the graph (not of the tree) at the first `:`; of joined labels
        (`conj:and>nsubj`, `nsubj:pass|obj`) it cuts every part, and keeps one of those parallel edges that
        become equal.
    trees, graphs : `bool`, optional (default = `True`)
        Whether HEAD and DEPREL, and DEPS, are read. What is not read is not checked either.
    absent_graphs : `str`, optional (default = `"refuse"`)
        Treatment of a sentence without a graph (DEPS is `_` throughout) in a file where others have one: it is
        refused, or with `"empty"` it has a graph without edges, as converted SDP data may have them.

    # Returns

    `Iterator[Sentence]`
        `heads` is `None` in files whose HEAD column is `_` throughout, `arcs` and `tops` in files whose DEPS
        column is. Where only some words of a sentence have `_` in DEPS, those have no head in its graph.

    # Errors

    `ConfigurationError` with file and line where the file is malformed.
    """
    check_options(empty_nodes, labels, absent_graphs)
    parser = _Parser(file_path, empty_nodes == "collapse", labels == "coarse", trees, graphs)
    sentences = (parser.parse(start, block) for start, block in blocks(lines))
    if absent_graphs == "empty":
        sentences = _with_empty_graphs(sentences)
    return checked_for_consistency(sentences, file_path, _ABSENT_GRAPHS_HINT)


def _with_empty_graphs(sentences: Iterable[Sentence]) -> Iterator[Sentence]:
    """An empty graph for each sentence without one, unless that is all of them: then the file has no such layer."""
    waiting: list[Sentence] = []
    found = False
    for sentence in sentences:
        waiting.append(sentence)
        found = found or sentence.arcs is not None
        if found:
            for each in waiting:
                if each.arcs is None:
                    each.arcs, each.tops = {}, {}
            yield from waiting
            waiting.clear()
    yield from waiting


def check_options(empty_nodes: str, labels: str, absent_graphs: str) -> None:
    """Refuses options that `parse_conllu` does not know, with a `ConfigurationError`."""
    one_of("empty_nodes", empty_nodes, ("collapse", "drop"))
    one_of("labels", labels, ("full", "coarse"))
    one_of("absent_graphs", absent_graphs, ("refuse", "empty"))


class _Parser:
    def __init__(self, file_path: str, collapse: bool, coarse: bool, trees: bool, graphs: bool) -> None:
        self._file_path = file_path
        self._collapse = collapse
        self._coarse = coarse
        self._trees = trees
        self._graphs = graphs
        self._ids = SentenceIds(file_path)

    def parse(self, start: int, block: list[str]) -> Sentence:
        comments: list[str] = []
        sentence_id: Optional[str] = None
        empty_graph = False
        multiword_tokens: dict[int, str] = {}
        empty_nodes: dict[str, tuple[int, str]] = {}  # id -> line, DEPS
        rows: list[list[str]] = []
        row_lines: list[int] = []
        last_of_range = 0

        for number, line in enumerate(block, start):
            if line[0] == "#" and not rows and not multiword_tokens and not empty_nodes:
                if line == EMPTY_GRAPH:
                    empty_graph = True
                    continue
                comments.append(line)
                found_id = _sentence_id(line)
                if found_id is not None:
                    if sentence_id is not None:
                        raise self._error(number, "a second sent_id for one sentence; is a blank line missing?")
                    sentence_id = found_id
                    self._ids.add(sentence_id, number)
                continue
            columns = line.split("\t")
            if len(columns) != 10 or "" in columns:
                if line[0] == "#":
                    problem = "a comment after the first token of a sentence; is a blank line missing?"
                else:
                    problem = wrong_columns(columns, line, _COLUMNS)
                raise self._error(number, problem)
            token = columns[0]
            if token == str(len(rows) + 1):
                rows.append(columns)
                row_lines.append(number)
            elif "-" in token:
                last_of_range = self._last_of_range(token, len(rows), last_of_range, number)
                multiword_tokens[len(rows) + 1] = line
            elif "." in token:
                previous = sum(other.startswith(f"{len(rows)}.") for other in empty_nodes)
                expected = f"{len(rows)}.{previous + 1}"
                if token in empty_nodes or token != expected:
                    problem = "occurs twice" if token in empty_nodes else "is out of order"
                    raise self._error(number, f"empty node {cut(token)} {problem}; expected {expected}")
                if self._trees and columns[6] != ABSENT:
                    raise self._error(number, f"empty node {token} needs {ABSENT} as HEAD: it is not in the tree")
                if self._graphs and self._collapse and columns[8] == ABSENT:
                    problem = f"empty node {token} needs its heads in DEPS to be collapsed"
                    raise self._error(number, problem + "; or set the dataset reader's empty_nodes to 'drop'")
                empty_nodes[token] = number, columns[8]
            else:
                raise self._error(number, token_number_problem(token, len(rows) + 1))

        if not rows:
            raise self._error(start, "comments without a sentence; at least one word must follow them")
        if last_of_range > len(rows):
            raise self._error(
                row_lines[-1],
                f"the sentence ends at word {len(rows)}, inside a multiword token up to word {last_of_range}",
            )

        _, words, lemmas, pos_tags, tags, feats, head_column, deprel_column, deps_column, misc = map(
            list, zip(*rows, strict=True)
        )
        heads, deprels = None, None
        if self._trees and head_column.count(ABSENT) < len(head_column):
            heads, deprels = parse_tree(head_column, deprel_column, row_lines, self._file_path, single_root=True)
        arcs, tops, loops = self._graph(deps_column, empty_nodes, row_lines) if self._graphs else (None, None, {})
        if empty_graph and self._graphs:
            if arcs is not None:
                raise self._error(start, f"the comment {EMPTY_GRAPH!r} stands over a sentence with edges in DEPS")
            arcs, tops = {}, {}
        return Sentence(
            words=words,
            lemmas=lemmas,
            pos_tags=pos_tags,
            tags=tags,
            heads=heads,
            deprels=deprels,
            arcs=arcs,
            tops=tops,
            loops=loops,
            feats=feats,
            misc=misc,
            multiword_tokens=multiword_tokens,
            comments=comments,
            sentence_id=sentence_id,
            line=start,
        )

    def _error(self, line: int, problem: str) -> ConfigurationError:
        return malformed(self._file_path, line, problem)

    def _last_of_range(self, token: str, words_before: int, last_of_range: int, line: int) -> int:
        match = _RANGE.fullmatch(token)
        if not match or int(match[1]) != words_before + 1 or int(match[2]) <= words_before + 1:
            raise self._error(
                line,
                f"{shorten(token)} is not a multiword token here; expected {words_before + 1}-m with a larger m, "
                "before the first of its words",
            )
        if last_of_range > words_before:
            raise self._error(line, f"multiword token {token} overlaps one that ends at word {last_of_range}")
        return int(match[2])

    def _graph(
        self, deps_column: list[str], empty_nodes: dict[str, tuple[int, str]], row_lines: list[int]
    ) -> tuple[Optional[dict[tuple[int, int], str]], Optional[dict[int, str]], dict[int, str]]:
        loops: dict[int, str] = {}
        if {*deps_column, *(deps for _, deps in empty_nodes.values())} == {ABSENT}:
            return None, None, loops
        position_of = positions(len(deps_column))
        edges_of_empty = {
            node: self._edges(node, deps, position_of, empty_nodes, line) if self._collapse else []
            for node, (line, deps) in empty_nodes.items()
        }
        arcs: dict[tuple[int, int], str] = {}
        tops: dict[int, str] = {}
        for word, (deps, line) in enumerate(zip(deps_column, row_lines, strict=True), 1):
            if deps == ABSENT:
                continue
            edges = self._edges(str(word), deps, position_of, empty_nodes, line)
            if edges_of_empty:
                edges = self._without_empty_nodes(word, edges, edges_of_empty, line)
            for head, label in edges:
                if self._coarse:
                    label = coarse_label(label)
                if head == "0":
                    _add(tops, word, label)
                elif position_of[head] == word:
                    _add(loops, word, label)
                else:
                    _add(arcs, (word, position_of[head]), label)
        return arcs, tops, loops

    def _edges(
        self,
        node: str,
        deps: str,
        position_of: dict[str, int],
        empty_nodes: dict[str, tuple[int, str]],
        line: int,
    ) -> _Edges:
        """The edges into a node, checked."""
        edges: _Edges = []
        for edge in deps.split("|"):
            head, _, label = edge.partition(":")
            if not label:
                raise self._error(
                    line, f"{shorten(edge)} in DEPS is not an edge; expected head:label, several joined by |"
                )
            if head not in position_of and head not in empty_nodes:
                if "." in head:
                    raise self._error(
                        line, f"head {cut(head)} in DEPS is an empty node that the sentence does not have"
                    )
                raise self._error(line, head_problem(head, len(position_of) - 1) + ", in DEPS")
            if head == node and PATH not in label:
                problem = f"in DEPS makes {node} its own head; a graph must not have loops"
                raise self._error(line, f"{shorten(edge)} {problem}")
            edges.append((head, label))
        if len(edges) > 1 and len(set(edges)) < len(edges):
            raise self._error(line, f"an edge occurs twice in DEPS, {shorten(deps)}")
        return edges

    def _without_empty_nodes(self, word: int, edges: _Edges, edges_of_empty: dict[str, _Edges], line: int) -> _Edges:
        kept: _Edges = []
        for head, label in edges:
            if head not in edges_of_empty:
                kept.append((head, label))
            elif self._collapse:
                steps = iter(range(_MAX_PATH_STEPS))
                try:
                    paths = list(_paths_into(head, edges_of_empty, {head}, steps))
                except _TooManyPaths:
                    raise self._error(
                        line,
                        f"head {head} in DEPS cannot be collapsed: too many paths lead through empty nodes; valid: "
                        f"up to {_MAX_PATH_STEPS} edges on all of them, and {_MAX_PATH_LENGTH} nodes on one",
                    ) from None
                if not paths:
                    raise self._error(
                        line,
                        f"head {head} in DEPS cannot be collapsed: no path leads to it from ROOT or a word",
                    )
                for source, path in paths:
                    if source == str(word):
                        logger.warning(
                            "%s:%d: a path through empty node %s leads from word %d to itself; that is evaluated, but "
                            "neither trained on nor predicted",
                            self._file_path,
                            line,
                            head,
                            word,
                        )
                    kept.append((source, path + PATH + label))
        return kept


class _TooManyPaths(Exception):
    pass


def _paths_into(
    node: str, edges_of_empty: dict[str, _Edges], visited: set[str], steps: Iterator[int]
) -> Iterator[tuple[str, str]]:
    """
    Paths from ROOT or a word to an empty node, visiting no empty node twice: (source, joined labels). There may be
    exponentially many: each edge is a step, and they end when `steps` do.
    """
    if len(visited) > _MAX_PATH_LENGTH:
        raise _TooManyPaths
    for head, label in edges_of_empty[node]:
        if next(steps, None) is None:
            raise _TooManyPaths
        if head not in edges_of_empty:
            yield head, label
        elif head not in visited:
            for source, path in _paths_into(head, edges_of_empty, visited | {head}, steps):
                yield source, path + PATH + label


def _add(edges: dict, key, label: str) -> None:
    """Adds an edge, or joins its label to a parallel one's, unless collapsing or cutting made them equal."""
    present = edges.setdefault(key, label)
    if label not in present.split(PARALLEL):
        edges[key] = present + PARALLEL + label


def _comments_of(sentence: Sentence) -> list[str]:
    comments = list(sentence.comments)
    if EMPTY_GRAPH in comments:
        raise ConfigurationError(f"cannot write the comment {EMPTY_GRAPH!r}: it says that 'arcs' and 'tops' are empty")
    ids = [id_ for comment in comments for id_ in [_sentence_id(comment)] if id_ is not None]
    if sentence.sentence_id is not None and not ids:
        ids.append(sentence.sentence_id.strip())
        at = next((i for i, comment in enumerate(comments) if not comment.startswith("# new")), len(comments))
        comments.insert(at, f"# sent_id = {sentence.sentence_id}")
    if ids != [] if sentence.sentence_id is None else ids != [sentence.sentence_id]:
        raise ConfigurationError(
            f"cannot write the sentence id {shorten(sentence.sentence_id)}: its comments would read back as "
            f"{shorten(ids)}; valid: one id, without blanks around it"
        )
    if sentence.arcs is not None and not any(sentence.edges()):
        comments.append(EMPTY_GRAPH)
    return comments


def _sentence_id(comment: str) -> Optional[str]:
    key, equals, value = comment[1:].partition("=")
    return value.strip() if equals and key.strip() == "sent_id" else None


def _check_multiword_tokens(sentence: Sentence) -> None:
    last = 0
    for first, line in sorted(sentence.multiword_tokens.items()):
        columns = line.split("\t")
        match = _RANGE.fullmatch(columns[0])
        if (
            len(columns) != 10
            or "" in columns
            or not match
            or not last < first == int(match[1]) < int(match[2]) <= len(sentence)
        ):
            raise ConfigurationError(
                f"cannot write the multiword token {shorten(line)} before word {first}: valid are ten columns, of "
                f"which the first is {first}-m, m up to {len(sentence)}, and no two tokens share a word"
            )
        join_columns(*columns)
        last = int(match[2])


def write_conllu(sentence: Sentence) -> str:
    """
    The sentence in CoNLL-U, with the blank line after it; `parse_conllu` reads back the same tree and graph.
    Frames and predicates have no place in the format.

    # Errors

    `ConfigurationError` where a word, tag or label cannot stand in a column, and for what would not read back: heads
    with a cycle, several roots or none, lists of other lengths than the words, multiword tokens without their words.
    """
    check_writable(sentence, single_root=True)
    comments = _comments_of(sentence)
    _check_multiword_tokens(sentence)

    edges: list[list[tuple[int, str]]] = [[] for _ in sentence.words]
    for word, label in (sentence.tops or {}).items():
        edges[word - 1].append((0, label))
    for word, label in sentence.loops.items():
        edges[word - 1].append((word, label))
    for (dependent, head), label in (sentence.arcs or {}).items():
        edges[dependent - 1].append((head, label))
    for position, labelled_heads in enumerate(edges, 1):
        for head, labels in labelled_heads:
            parts = labels.split(PARALLEL)
            is_loop = head == position and not all(PATH in part for part in parts)
            if "" in parts or len(set(parts)) < len(parts) or is_loop:
                raise ConfigurationError(
                    f"cannot write the label {shorten(labels)} of the edge {head} -> {position}: expected a "
                    f"label, or different ones joined by {PARALLEL}; of a path from a word to itself, with {PATH}"
                )

    lines = [join_comments(comments)]
    for index, word in enumerate(sentence.words):
        if index + 1 in sentence.multiword_tokens:
            lines.append(sentence.multiword_tokens[index + 1] + "\n")
        deps = PARALLEL.join(
            f"{head}:{label}" for head, labels in sorted(edges[index]) for label in labels.split(PARALLEL)
        )
        lines.append(
            join_columns(
                str(index + 1),
                word,
                sentence.lemmas[index],
                sentence.pos_tags[index],
                sentence.tags[index],
                sentence.feats[index],
                ABSENT if sentence.heads is None else str(sentence.heads[index]),
                ABSENT if sentence.deprels is None else sentence.deprels[index],
                deps or ABSENT,
                sentence.misc[index],
            )
        )
    return "".join(lines) + "\n"
