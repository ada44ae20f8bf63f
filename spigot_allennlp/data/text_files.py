"""
What the formats have in common: lines, blocks of lines (of SDP and CoNLL-U), JSON, and how errors are reported.
"""

import bz2
import gzip
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any, Optional

from allennlp.common.checks import ConfigurationError
from allennlp.common.file_utils import cached_path

from spigot_allennlp.data.sentence import ABSENT, Sentence


def malformed(file_path: str, line: int, problem: str) -> ConfigurationError:
    """The error for a malformed line, to be raised: `path:line: problem`."""
    return ConfigurationError(f"{file_path}:{line}: {problem}")


_COMPRESSED = {".gz": gzip.open, ".bz2": bz2.open}


def shorten(value: Any, length: int = 60) -> str:
    """What an error quotes of an input: its `repr`, cut where it is longer than `length`."""
    return cut(repr(value[: length + 1] if isinstance(value, (str, list)) else value), length)


def cut(text: str, length: int = 60) -> str:
    return text if len(text) <= length else text[:length] + "..."


def read_lines(file_path: str) -> Iterator[str]:
    """
    The lines of a UTF-8 file (with or without a byte order mark, any line ends, also compressed as `.gz` or `.bz2`),
    read as they are asked for; `-` is the standard input.

    # Errors

    `ConfigurationError` where there is no such file, or it is not UTF-8, or not compressed as its name says.
    """
    if file_path == "-":
        for number, line in enumerate(sys.stdin, 1):
            yield line.removeprefix("\ufeff") if number == 1 else line
        return
    try:
        local_path = cached_path(file_path)
    except FileNotFoundError:
        raise ConfigurationError(f"{file_path}: there is no such file") from None
    if os.path.isdir(local_path):
        raise ConfigurationError(f"{file_path}: is a directory; the path of one file is needed")
    open_file = _COMPRESSED.get(os.path.splitext(file_path)[1], open)
    try:
        with open_file(local_path, mode="rt", encoding="utf-8-sig") as file:
            yield from file
    except UnicodeDecodeError:
        # The decoder works on chunks and knows no line numbers.
        with open_file(local_path, mode="rb") as file:
            for number, raw_line in enumerate(file, 1):
                try:
                    raw_line.decode("utf-8")
                except UnicodeDecodeError as error:
                    problem = f"byte {error.start + 1} of the line is not valid UTF-8 ({error.reason})"
                    raise malformed(file_path, number, problem) from None
    except (EOFError, OSError) as error:
        raise ConfigurationError(f"{file_path}: cannot be read ({error})") from None


def parse_json(text: str) -> Any:
    """
    `json.loads`, which raises a `ValueError` whatever is wrong: also a key that occurs twice in an object, brackets
    nested too deeply for it, and halves of characters (a surrogate such as `\\ud800` without its other half), which no
    file can be written with.
    """
    try:
        value = json.loads(text, object_pairs_hook=_without_duplicates)
    except RecursionError:
        raise ValueError("brackets are nested too deeply") from None
    if "\\u" in text:
        try:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError as error:
            half = error.object[error.start]
            raise ValueError(f"it has half a character, \\u{ord(half):04x}, without the other half") from None
    return value


def _without_duplicates(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    entry = dict(pairs)
    if len(entry) < len(pairs):
        keys = [key for key, _ in pairs]
        duplicate = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {shorten(duplicate)} occurs twice in one object")
    return entry


def blocks(lines: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    """Groups lines that stand between blank lines; with each group the number of its first line."""
    block: list[str] = []
    for number, line in enumerate(chain(lines, [""]), 1):
        line = line.rstrip("\r\n")
        if line and not line.isspace():
            block.append(line)
        elif block:
            yield number - len(block), block
            block = []


def wrong_columns(columns: Sequence[str], line: str, expected: str) -> str:
    """Describes a line with a wrong number of columns, or with an empty one."""
    if len(columns) == 1 and len(line.split()) > 1:
        return f"found no tab; columns must be separated by single tabs; expected {expected}"
    if "" in columns:
        return f"column {columns.index('') + 1} is empty; an absent value is written {ABSENT}"
    return f"found {len(columns)} columns; expected {expected}"


@lru_cache(maxsize=1024)
def positions(length: int) -> dict[str, int]:
    """How a head may be written in a sentence of that length; unlike `int`, refuses `+1`, `01` and `1_0`."""
    return {str(position): position for position in range(length + 1)}


def token_number_problem(found: str, expected: int) -> str:
    """Describes a token number other than the expected one."""
    if found in positions(expected - 1) and found != "0":
        return f"token number {found} occurs twice; expected {expected}"
    return f"expected token number {expected}, found {shorten(found)}; words are numbered 1, 2, 3, ..."


def head_problem(found: str, length: int) -> str:
    """Describes a head that is not a position in the sentence."""
    if re.fullmatch("-?[1-9][0-9]*", found):
        return f"head {cut(found)} is out of range; expected 0 (the root) to {length} (the last word)"
    return f"head {shorten(found)} is not an integer; expected 0 (the root) to {length} (the last word)"


def parse_tree(
    head_column: list[str],
    deprel_column: list[str],
    row_lines: Sequence[int],
    file_path: str,
    single_root: bool,
) -> tuple[list[int], Optional[list[str]]]:
    """
    # Parameters

    head_column, deprel_column : `List[str]`
        Head and relation of each word, as the file has them.
    row_lines : `Sequence[int]`
        The number of each word's line.
    file_path : `str`
        Path that errors name.
    single_root : `bool`
        Whether exactly one word may have head 0, as Universal Dependencies demands of a basic tree.

    # Returns

    `Tuple[List[int], Optional[List[str]]]`
        Heads, and relations or `None` where all are `_`.

    # Errors

    `ConfigurationError` where the heads are not a tree, or only some words have a relation.
    """
    position_of = positions(len(head_column))
    try:
        heads = [position_of[head] for head in head_column]
    except KeyError as error:
        head = error.args[0]
        raise malformed(file_path, row_lines[head_column.index(head)], head_problem(head, len(head_column))) from None
    problem = tree_problem(heads, single_root)
    if problem:
        word, text = problem
        raise malformed(file_path, row_lines[word - 1], text)
    unlabelled = deprel_column.count(ABSENT)
    if 0 < unlabelled < len(deprel_column):
        line = row_lines[deprel_column.index(ABSENT)]
        raise malformed(file_path, line, f"the relation to the head is {ABSENT}; either all words need one or none")
    return heads, None if unlabelled else deprel_column


def tree_problem(heads: Sequence[int], single_root: bool) -> Optional[tuple[int, str]]:
    """
    # Parameters

    heads : `Sequence[int]`
        The head of each word, in `0 .. len(heads)`.
    single_root : `bool`
        Whether exactly one word may have head 0, as Universal Dependencies demands of a basic tree.

    # Returns

    `Optional[Tuple[int, str]]`
        `None` where `heads` is a tree; else the word to blame and what is wrong.
    """
    visited_by = [0] * (len(heads) + 1)
    visited_by[0] = -1
    for start in range(1, len(heads) + 1):
        word = start
        while not visited_by[word]:
            visited_by[word] = start
            word = heads[word - 1]
        if visited_by[word] == start:
            cycle = [word]
            while not (len(cycle) > 1 and cycle[-1] == word):
                cycle.append(heads[cycle[-1] - 1])
            path = " -> ".join(map(str, cycle if len(cycle) <= 12 else [*cycle[:6], "...", *cycle[-3:]]))
            return (
                word,
                f"the heads form a cycle ({path}); following them from any word must lead to 0, the root",
            )
    if single_root and heads.count(0) > 1:
        first = heads.index(0)
        second = heads.index(0, first + 1)
        problem = f"words {first + 1} and {second + 1} both have head 0; the tree must have exactly one root"
        return second + 1, problem
    return None


class SentenceIds:
    """Refuses a sentence id that an earlier sentence of the file has."""

    def __init__(self, file_path: str) -> None:
        self._file_path = file_path
        self._lines: dict[str, int] = {}

    def add(self, sentence_id: str, line: int) -> None:
        first_line = self._lines.setdefault(sentence_id, line)
        if first_line != line:
            problem = f"duplicate sentence id {shorten(sentence_id)}; line {first_line} has it already"
            raise malformed(self._file_path, line, problem)


def checked_for_consistency(sentences: Iterable[Sentence], file_path: str, graph_hint: str = "") -> Iterator[Sentence]:
    """
    Passes sentences on; refuses a file without any, and one where some have a tree, relations or a graph and
    others do not: their instances could not share a batch. `graph_hint` says how to go on without a graph.
    """
    first: Optional[Sentence] = None
    for sentence in sentences:
        if first is None:
            first = sentence
        for name, annotation in (("tree", "heads"), ("labelled tree", "deprels"), ("graph", "arcs")):
            has, expected = (getattr(each, annotation) is not None for each in (sentence, first))
            if has != expected:
                problem = (
                    f"the sentence has {'a' if has else 'no'} {name}, unlike the first one of the file (line "
                    f"{first.line}); either all sentences must have one or none"
                )
                raise malformed(file_path, sentence.line, problem + (graph_hint if name == "graph" else ""))
        yield sentence
    if first is None:
        raise ConfigurationError(f"{file_path}: the file holds no sentences")


def check_writable(sentence: Sentence, single_root: bool) -> None:
    """
    # Errors

    `ConfigurationError` where a sentence would not read back: without words, with lists of other lengths than its
    words, or with heads or relations that `parse_tree` refuses.
    """
    sentence.check_lengths()
    if not sentence.words:
        raise ConfigurationError("cannot write a sentence without words")
    if sentence.deprels is not None and sentence.heads is None:
        raise ConfigurationError("cannot write relations without heads; 'deprels' needs 'heads'")
    if sentence.heads is None:
        return
    for word, head in enumerate(sentence.heads, 1):
        if head not in range(len(sentence) + 1):
            raise ConfigurationError(f"cannot write the tree: {head_problem(str(head), len(sentence))} (word {word})")
    problem = tree_problem(sentence.heads, single_root)
    if problem:
        raise ConfigurationError(f"cannot write the tree: {problem[1]}")
    if ABSENT in (sentence.deprels or ()):
        word = sentence.deprels.index(ABSENT) + 1
        raise ConfigurationError(f"cannot write the relation {ABSENT} of word {word}: it stands for no relation")


def join_columns(*columns: str) -> str:
    """A line of a file; raises a `ConfigurationError` where a value would not survive in it."""
    for column in columns:
        if not column or "\t" in column or "\n" in column or "\r" in column:
            raise ConfigurationError(
                f"cannot write {shorten(column)} as a column: it must not be empty or contain a tab or a line break"
            )
    return "\t".join(columns) + "\n"


def join_comments(comments: Iterable[str]) -> str:
    """Comment lines of a file; raises a `ConfigurationError` where one would not read back as a comment."""
    for comment in comments:
        if not comment.startswith("#") or "\n" in comment or "\r" in comment:
            raise ConfigurationError(
                f"cannot write {shorten(comment)} as a comment: it must be one line that starts with #"
            )
    return "".join(comment + "\n" for comment in comments)
