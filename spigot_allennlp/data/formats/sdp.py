"""
The SDP formats of SemEval 2014 task 8 and 2015 task 18 (Oepen et al., 2014 and 2015;
http://sdp.delph-in.net), and the companion files that bring syntax.

A sentence is a line `#id` and one line for each token, tab-separated, with a blank line after it. Columns:

- 2014: id, form, lemma, pos, top, pred
- 2015: id, form, lemma, pos, top, pred, frame
- 2015, not annotated (`*.tt`): id, form, lemma, pos
- augmented (as in the releases of NeurboParser and AllenNLP): id, form, lemma, pos, head, deprel, top, pred,
  frame

and in all with graphs one column of arguments for each predicate (`+` under pred), in their order: the label of
the arc from that predicate, or `_`.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, Optional

from allennlp.common.checks import ConfigurationError

from spigot_allennlp.data.sentence import ABSENT, ROOT_LABEL, Sentence
from spigot_allennlp.data.text_files import (
    SentenceIds,
    blocks,
    check_writable,
    checked_for_consistency,
    join_columns,
    join_comments,
    malformed,
    parse_tree,
    shorten,
    token_number_problem,
    wrong_columns,
)

SDP_HEADER = "#SDP 2015"
"""The first line of a file in the 2015 format. `parse_sdp` does not need it; the task's own tools do."""


_HEADER = re.compile(r"#SDP \d{4}\s*")
_FLAGS = ("+", "-")


class _Columns(NamedTuple):
    """The columns before the arguments; `top`, `head` and `frame` are 0 where the format has none."""

    description: str
    count: int
    top: int = 0
    head: int = 0
    frame: int = 0


_UNANNOTATED = _Columns("4 (id form lemma pos)", count=4)
_SDP_2014 = _Columns("6 (id form lemma pos top pred)", count=6, top=4)
_SDP_2015 = _Columns("7 (id form lemma pos top pred frame)", count=7, top=4, frame=6)
_AUGMENTED = _Columns("9 (id form lemma pos head deprel top pred frame)", count=9, top=6, head=4, frame=8)


class CompanionTree(NamedTuple):
    """A sentence of a companion file."""

    tags: list[str]
    heads: Optional[list[int]]
    deprels: Optional[list[str]]


def parse_sdp(
    lines: Iterable[str],
    file_path: str,
    companion: Optional[dict[str, CompanionTree]] = None,
    trees: bool = True,
    graphs: bool = True,
) -> Iterator[Sentence]:
    """
    # Parameters

    lines : `Iterable[str]`
        Lines of the file.
    file_path : `str`
        Path that errors name.
    companion : `Dict[str, CompanionTree]`, optional
        Trees by sentence id, from `parse_companion`: every sentence must have one, of its length.
    trees, graphs : `bool`, optional (default = `True`)
        Whether the columns of trees (head, deprel) and of graphs (top, pred, frame, arguments) are read. What is not
        read is not checked either.

    # Returns

    `Iterator[Sentence]`
        The first line that starts with `#` is a sentence's id (headers such as `#SDP 2015` aside), further
        ones are its comments; a sentence may lack an id. Top nodes are labeled `root`. A tree (of the
        augmented format, or from `companion`) may have several roots, as trees of the task's parsers do. A file
        that is not annotated has no graphs.

    The format is told from the header and the first sentence, and holds for the whole file. `+` or `-` in
    column 7 and not in column 5 mean the augmented format; 2014 and 2015 are told apart by a header (`#SDP
    2015`), or else by the number of columns.

    # Errors

    `ConfigurationError` with file and line where the file is malformed.
    """
    return checked_for_consistency(_parse_sentences(lines, file_path, companion, trees, graphs), file_path)


def _parse_sentences(
    lines: Iterable[str], file_path: str, companion: Optional[dict[str, CompanionTree]], trees: bool, graphs: bool
) -> Iterator[Sentence]:
    ids = SentenceIds(file_path)
    header: Optional[str] = None
    layout: Optional[_Columns] = None
    for start, block in blocks(lines):
        while block and _HEADER.fullmatch(block[0]):
            header, block, start = block[0], block[1:], start + 1
        if not block:
            continue
        comments, rows = _split_block(block, start, file_path)
        layout = layout or _detect_columns(rows, header)
        sentence = _parse_rows(rows, layout, start + len(comments), file_path, trees, graphs)
        sentence.line = start
        if comments:
            sentence.sentence_id = comments[0][1:].strip()
            sentence.comments = comments[1:]
            ids.add(sentence.sentence_id, start)
        if companion is not None:
            _add_companion(sentence, companion, file_path)
        yield sentence


def _split_block(block: list[str], start: int, file_path: str) -> tuple[list[str], list[list[str]]]:
    """Comments, and the columns of the token lines."""
    comments: list[str] = []
    rows: list[list[str]] = []
    for number, line in enumerate(block, start):
        if line[0] != "#":
            rows.append(line.split("\t"))
        elif rows:
            raise malformed(
                file_path, number, "a comment after the first token of a sentence; is a blank line missing?"
            )
        else:
            comments.append(line)
    if not rows:
        raise malformed(file_path, start, "a sentence id without a sentence; at least one token must follow it")
    return comments, rows


def _detect_columns(rows: list[list[str]], header: Optional[str]) -> _Columns:
    first = rows[0]
    if len(first) == _UNANNOTATED.count:
        return _UNANNOTATED
    if len(first) >= _AUGMENTED.count and first[_SDP_2015.top] not in _FLAGS and first[_AUGMENTED.top] in _FLAGS:
        return _AUGMENTED
    if header is not None:
        return _SDP_2014 if "2014" in header else _SDP_2015
    num_predicates = sum(len(row) > 5 and row[5] == "+" for row in rows)
    return _SDP_2014 if len(first) == _SDP_2014.count + num_predicates else _SDP_2015


def _parse_rows(
    rows: list[list[str]], layout: _Columns, start: int, file_path: str, trees: bool, graphs: bool
) -> Sentence:
    annotated = layout is not _UNANNOTATED
    for word, row in enumerate(rows, 1):
        line = start + word - 1
        if len(row) < layout.count or "" in row or (len(row) > layout.count and not annotated):
            expected = f"at least {layout.description}" if annotated else layout.description
            raise malformed(file_path, line, wrong_columns(row, "\t".join(row), expected))
        if row[0] != str(word):
            raise malformed(file_path, line, token_number_problem(row[0], word))

    heads, deprels = None, None
    if layout.head and trees:
        heads, deprels = parse_tree(
            [row[layout.head] for row in rows],
            [row[layout.head + 1] for row in rows],
            range(start, start + len(rows)),
            file_path,
            single_root=False,
        )
    graph = _parse_graph(rows, layout, start, file_path) if annotated and graphs else {}
    return Sentence(
        words=[row[1] for row in rows],
        lemmas=[row[2] for row in rows],
        pos_tags=[row[3] for row in rows],
        heads=heads,
        deprels=deprels,
        **graph,
    )


def _parse_graph(rows: list[list[str]], layout: _Columns, start: int, file_path: str) -> dict[str, Any]:
    """What a `Sentence` has of a graph: `arcs`, `tops`, `predicates` and `frames`."""
    top_column, predicate_column = layout.top, layout.top + 1
    tops: dict[int, str] = {}
    predicates: list[int] = []
    for word, row in enumerate(rows, 1):
        for column, name in ((top_column, "top"), (predicate_column, "pred")):
            if row[column] not in _FLAGS:
                problem = f"{name} (column {column + 1}) must be + or -, not {shorten(row[column])}"
                raise malformed(file_path, start + word - 1, problem)
        if row[top_column] == "+":
            tops[word] = ROOT_LABEL
        if row[predicate_column] == "+":
            predicates.append(word)

    arcs: dict[tuple[int, int], str] = {}
    for word, row in enumerate(rows, 1):
        arguments = row[layout.count :]
        line = start + word - 1
        if len(arguments) != len(predicates):
            raise malformed(
                file_path,
                line,
                f"found {len(row)} columns; expected {layout.description} and {len(predicates)} argument "
                f"columns, one for each predicate (+ in column {predicate_column + 1}) of the sentence",
            )
        for head, label in zip(predicates, arguments, strict=True):
            if label != ABSENT:
                if head == word:
                    problem = f"argument {shorten(label)} of word {word} to itself; a graph must not have loops"
                    raise malformed(file_path, line, problem)
                arcs[word, head] = label
    frames = [row[layout.frame] for row in rows] if layout.frame else None
    return {"arcs": arcs, "tops": tops, "predicates": predicates, "frames": frames}


def _add_companion(sentence: Sentence, companion: dict[str, CompanionTree], file_path: str) -> None:
    if sentence.heads is not None:
        problem = "the sentence has a tree already (columns head and deprel); a companion file must not bring one"
    elif sentence.sentence_id is None:
        problem = "the sentence has no id line (#id), which its tree in the companion file is found by"
    elif sentence.sentence_id not in companion:
        problem = f"no companion file has a sentence with the id {shorten(sentence.sentence_id)}"
    elif len(companion[sentence.sentence_id].tags) != len(sentence):
        length = len(companion[sentence.sentence_id].tags)
        problem = f"the sentence has {len(sentence)} tokens, and {length} in the companion file"
    else:
        sentence.tags, sentence.heads, sentence.deprels = companion[sentence.sentence_id]
        return
    raise malformed(file_path, sentence.line, problem)


def parse_companion(lines: Iterable[str], file_path: str, trees: bool = True) -> dict[str, CompanionTree]:
    """
    # Parameters

    lines : `Iterable[str]`
        Sentences with an id line (`#22000001`, or `# sent_id = 22000001`) each, and a line for each token, in
        three columns, as the task's companion files (`*.cpn`) have them: pos, head, deprel; or in the ten columns
        of CoNLL-X and CoNLL-U, where the fifth, seventh and eighth are read; multiword tokens and empty nodes
        are skipped.
    file_path : `str`
        Path that errors name.
    trees : `bool`, optional (default = `True`)
        Whether heads and relations are read; otherwise the parts of speech are, and nothing else is checked.

    # Returns

    `Dict[str, CompanionTree]`
        By sentence id.

    # Errors

    `ConfigurationError` with file and line where the file is malformed.
    """
    ids = SentenceIds(file_path)
    found: dict[str, CompanionTree] = {}
    for start, block in blocks(lines):
        while block and _HEADER.fullmatch(block[0]):
            block, start = block[1:], start + 1
        if not block:
            continue
        comments, rows = _split_block(block, start, file_path)
        if not comments:
            raise malformed(file_path, start, "a sentence without an id line (#id), which it is found by")
        sentence_id, id_line = comments[0][1:].strip(), start
        for number, comment in enumerate(comments, start):
            key, equals, value = comment[1:].partition("=")
            if equals and key.strip() == "sent_id":
                sentence_id, id_line = value.strip(), number
        ids.add(sentence_id, id_line)
        found[sentence_id] = _parse_companion_rows(rows, start + len(comments), file_path, trees)
    if not found:
        raise ConfigurationError(f"{file_path}: the file holds no sentences")
    return found


def _parse_companion_rows(rows: list[list[str]], start: int, file_path: str, trees: bool) -> CompanionTree:
    tags: list[str] = []
    head_column: list[str] = []
    deprel_column: list[str] = []
    row_lines: list[int] = []
    for line, row in enumerate(rows, start):
        if len(row) not in (3, 10) or "" in row:
            expected = "3 (pos head deprel) or 10 (CoNLL-X, CoNLL-U)"
            raise malformed(file_path, line, wrong_columns(row, "\t".join(row), expected))
        if len(row) == 10:
            if "-" in row[0] or "." in row[0]:
                continue
            if row[0] != str(len(tags) + 1):
                raise malformed(file_path, line, token_number_problem(row[0], len(tags) + 1))
            row = [row[4], row[6], row[7]]
        for column, value in zip((tags, head_column, deprel_column), row, strict=True):
            column.append(value)
        row_lines.append(line)
    if not tags:
        raise malformed(file_path, start, "a sentence without words")
    if not trees:
        return CompanionTree(tags, None, None)
    return CompanionTree(tags, *parse_tree(head_column, deprel_column, row_lines, file_path, single_root=False))


def write_sdp(sentence: Sentence) -> str:
    """
    The sentence in SDP, with the blank line after it: seven columns as in 2015, or the nine of the augmented
    format where the sentence has a tree (set `heads` to `None` for files that the task's own tools should
    read); `parse_sdp` reads back the same. `tags`, `feats`, `misc`, multiword tokens, the labels of tops and,
    where there is no id line for them to follow, comments have no place in the format.

    # Errors

    `ConfigurationError` where the sentence has no graph, where a word, tag or label cannot stand in a column, and for
    what would not read back: heads with a cycle, lists of other lengths than the words, an id with blanks around it.
    """
    check_writable(sentence, single_root=False)
    id_ = sentence.sentence_id
    if id_ is not None and (id_ != id_.strip() or _HEADER.fullmatch(f"#{id_}")):
        raise ConfigurationError(
            f"cannot write the sentence id {shorten(id_)}: as a line of SDP it would not read back"
        )
    if sentence.arcs is None:
        raise ConfigurationError("cannot write a sentence without a graph as SDP; 'arcs' and 'tops' are None")
    for (dependent, head), label in sentence.arcs.items():
        if label == ABSENT:
            raise ConfigurationError(f"cannot write the arc {head} -> {dependent}: in SDP the label _ means no arc")
    predicates = sorted({head for _, head in sentence.arcs}.union(sentence.predicates or ()))
    lines = []
    if sentence.sentence_id is not None:
        lines.append(join_comments([f"#{sentence.sentence_id}", *sentence.comments]))
    for index, word in enumerate(sentence.words):
        position = index + 1
        tree = []
        if sentence.heads is not None:
            tree = [
                str(sentence.heads[index]),
                ABSENT if sentence.deprels is None else sentence.deprels[index],
            ]
        lines.append(
            join_columns(
                str(position),
                word,
                sentence.lemmas[index],
                sentence.pos_tags[index],
                *tree,
                "+" if position in sentence.tops else "-",
                "+" if position in predicates else "-",
                sentence.frames[index],
                *(sentence.arcs.get((position, predicate), ABSENT) for predicate in predicates),
            )
        )
    return "".join(lines) + "\n"
