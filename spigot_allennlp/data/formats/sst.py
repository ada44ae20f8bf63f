"""
Sentences with sentiment labels, one a line, in any of three formats:

- the bracketed trees of the Stanford Sentiment Treebank (Socher et al. 2013): `(3 (2 It) (4 (2 's) (3 lovely)))`,
  every node with a label from 0 (very negative) to 4 (very positive);
- `label<TAB>sentence`;
- JSON lines: `{"label": 1, "sentence": "It's lovely"}`, or with `"tokens": ["It", "'s", "lovely"]` for `sentence`, and
  perhaps an `id`. In a file to predict on, no line has a `label`.

Only the labels of trees are SST's five, to be mapped to fewer classes. The others are the classes themselves: nothing
in a file of zeros and ones would tell whether 1 means positive or rather negative.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, Optional

from allennlp.common.checks import ConfigurationError

from spigot_allennlp.data.sentence_length import length_problem
from spigot_allennlp.data.text_files import cut, malformed, parse_json, shorten

CLASSES: dict[int, tuple[Optional[int], ...]] = {
    5: (0, 1, 2, 3, 4),
    3: (0, 0, 1, 2, 2),
    2: (0, 0, None, 1, 1),
}
"""For each number of classes, what SST's labels 0 to 4 become; of two classes neutral is neither."""

_FORMATS = {
    "tree": "a bracketed tree, (3 (2 So) (3 good))",
    "tabbed": "label<TAB>sentence",
    "JSON": 'JSON, {"label": 3, "sentence": "So good"}',
}
_KEYS = ("label", "sentence", "tokens", "id")
_ESCAPES = {"LRB": "(", "RRB": ")", "LSB": "[", "RSB": "]", "LCB": "{", "RCB": "}"}
_ESCAPE = re.compile(r"-([LR][RSC]B|[lr][rsc]b)-")
# SST has tokens with a no-break space inside, such as "8 1/2", which are one word.
_SPACE = " \t\r\n\f\v"
_PIECE = re.compile(rf"[()]|[^(){_SPACE}]+")


class SentimentTree(NamedTuple):
    """
    # Parameters

    words : `List[str]`
        Words of the sentence.
    phrases : `List[Tuple[int, int, Optional[int]]]`
        Start, end (exclusive) and class of every phrase, the sentence itself first; the class is `None` for neutral
        phrases where there are two classes, and for a sentence without a label.
    labelled : `bool`
        Whether the file has labels.
    """

    words: list[str]
    phrases: list[tuple[int, int, Optional[int]]]
    labelled: bool = True


def split_words(text: str) -> list[str]:
    """The words of a tokenized sentence, with the Penn Treebank's escapes undone."""
    return [unescape(word) for word in re.split(f"[{_SPACE}]+", text) if word]


def unescape(word: str) -> str:
    r"""Undoes the escapes of the Penn Treebank: `-LRB-` and its like, also in lower case, `\/` and `\*`."""
    word = _ESCAPE.sub(lambda match: _ESCAPES[match[1].upper()], word)
    return word.replace("\\/", "/").replace("\\*", "*")


def parse_sst(
    lines: Iterable[str],
    file_path: str,
    num_classes: int = 5,
    max_sentence_length: Optional[int] = None,
    tokenize: Callable[[str], list[str]] = split_words,
) -> Iterator[SentimentTree]:
    """
    # Parameters

    lines : `Iterable[str]`
        Lines of the file. Blank ones are skipped; the first of the others tells the format.
    file_path : `str`
        Path that errors name.
    num_classes : `int`, optional (default = `5`)
        Number of classes: 5, 3 or 2.
    max_sentence_length : `int`, optional (default = `None`)
        Largest number of words of a sentence.
    tokenize : `Callable[[str], List[str]]`, optional (default = `split_words`)
        Tokenizer for the sentences of tabbed and JSON lines, which are text. Trees and `tokens` stay as they
        are.

    # Returns

    `Iterator[SentimentTree]`

    # Errors

    `ConfigurationError` with file and line: brackets that do not match, a node without words or with several, labels
    out of range, a line without words or with too many, columns too many, keys that JSON lacks or does not know, labels
    in some lines only, a line in another format than the first; and for a file without sentences.
    """
    first: Optional[tuple[str, int]] = None
    labelled = True
    for number, line in enumerate(lines, 1):
        if not line.strip(_SPACE):
            continue
        found = _format_of(line)
        if found is None:
            valid = "; ".join(_FORMATS.values())
            raise malformed(file_path, number, f"{shorten(line)} is in no known format; valid: {valid}")
        first = first or (found, number)
        if found != first[0]:
            problem = f"the line looks like {_FORMATS[found]}, but line {first[1]} is {_FORMATS[first[0]]}"
            raise malformed(file_path, number, problem + "; all lines of a file must be in one format")
        try:
            if found == "tree":
                tree = _parse_tree(line, CLASSES[num_classes])
            else:
                entry, words = (_parse_json if found == "JSON" else _parse_tabbed)(line, tokenize)
                labelled = "label" in entry if number == first[1] else labelled
                if labelled != ("label" in entry):
                    problem = f"is missing; found {_keys(entry)}" if labelled else "is not in the lines before"
                    raise ValueError(f"the key 'label' {problem}; either all lines of a file must have it or none")
                class_ = _class_of(entry["label"], num_classes) if labelled else None
                tree = SentimentTree(words, [(0, len(words), class_)], labelled)
            problem = max_sentence_length and length_problem(len(tree.words), max_sentence_length)
            if problem:
                raise ValueError(problem)
        except ValueError as error:
            raise malformed(file_path, number, str(error)) from None
        yield tree
    if first is None:
        raise ConfigurationError(f"{file_path}: the file holds no sentences")


def _format_of(line: str) -> Optional[str]:
    start = line.lstrip(_SPACE)[0]
    if start == "(" or start == ")":
        return "tree"
    if start == "{":
        return "JSON"
    # A label by itself lacks its sentence, not its format.
    return "tabbed" if "\t" in line or line.strip(_SPACE).isdecimal() else None


def _parse_tree(line: str, classes: tuple[Optional[int], ...]) -> SentimentTree:
    words: list[str] = []
    # For each node: its first word, the word after its last one, its class; nodes stand in the order of their brackets.
    nodes: list[list[Any]] = []
    open_nodes: list[tuple[int, int]] = []
    previous = "nothing"
    for match in _PIECE.finditer(line):
        piece, column = match[0], match.start() + 1
        if not open_nodes and piece == ")":
            raise ValueError(f"the brackets do not match: that at column {column} closes none")
        if not open_nodes and nodes:
            raise ValueError(
                f"{shorten(piece)} at column {column} is after the end of the tree; valid: one tree a line"
            )
        if piece == "(":
            if previous == "(":
                raise ValueError(f"the bracket at column {open_nodes[-1][1]} is followed by no label")
            if previous == "word":
                raise ValueError(f"the bracket at column {column} follows a word; a node has one word or other nodes")
            open_nodes.append((len(nodes), column))
            nodes.append([len(words), None, None])
            previous = "("
        elif piece == ")":
            node, opened = open_nodes.pop()
            if previous in ("(", "label"):
                raise ValueError(f"the node at column {opened} has no words")
            nodes[node][1] = len(words)
            previous = ")"
        elif previous == "(":
            if piece not in ("0", "1", "2", "3", "4"):
                raise ValueError(
                    f"label {shorten(piece)} at column {column} is out of range; valid: 0 (very negative) to 4 (very "
                    "positive)"
                )
            nodes[-1][2] = classes[int(piece)]
            previous = "label"
        elif previous == "label":
            words.append(unescape(piece))
            previous = "word"
        else:
            raise ValueError(f"unexpected {shorten(piece)} at column {column}; a node has one word or other nodes")
    if open_nodes:
        count, column = len(open_nodes), open_nodes[-1][1]
        raise ValueError(f"the brackets do not match: {count} not closed, the last of them at column {column}")
    return SentimentTree(words, [tuple(node) for node in nodes])


def _parse_tabbed(line: str, tokenize: Callable[[str], list[str]]) -> tuple[dict[str, Any], list[str]]:
    label, *columns = line.rstrip("\r\n").split("\t")
    if len(columns) > 1:
        raise ValueError(f"found {len(columns) + 1} columns; expected two: {_FORMATS['tabbed']}")
    label, words = label.strip(_SPACE), tokenize("".join(columns))
    if not words:
        raise ValueError(f"label {shorten(label)} has no words after it; valid: {_FORMATS['tabbed']}")
    return {"label": label}, words


def _parse_json(line: str, tokenize: Callable[[str], list[str]]) -> tuple[dict[str, Any], list[str]]:
    try:
        entry = parse_json(line)
    except ValueError as error:
        raise ValueError(f"the line begins with '{{' but is not JSON: {error}") from None
    unknown = [key for key in entry if key not in _KEYS]
    if unknown:
        raise ValueError(f"unknown key {shorten(unknown[0])}; valid: {', '.join(map(repr, _KEYS))}")
    if ("sentence" in entry) == ("tokens" in entry):
        raise ValueError(f"needs either 'sentence' or 'tokens'; found {_keys(entry)}")
    if "tokens" in entry:
        words = entry["tokens"]
        if not isinstance(words, list) or not all(map(_is_word, words)):
            raise ValueError(f"'tokens' is {shorten(words)}; valid: a list of words")
        words = [unescape(word) for word in words]
    elif isinstance(entry["sentence"], str):
        words = tokenize(entry["sentence"])
    else:
        raise ValueError(f"'sentence' is {shorten(entry['sentence'])}; valid: a string")
    if not words:
        raise ValueError("the line has no words")
    return entry, words


def _keys(entry: dict[str, Any]) -> str:
    return cut(", ".join(map(repr, entry)) or "none")


def _is_word(word: Any) -> bool:
    # A vocabulary's file has a word on each line.
    return isinstance(word, str) and bool(word.strip(_SPACE)) and "\n" not in word and "\r" not in word


def _class_of(label: Any, num_classes: int) -> int:
    valid = [str(index) for index in range(num_classes)]
    # Neither True nor 1.0 is a label.
    if not isinstance(label, (int, str)) or str(label) not in valid:
        hint = "" if num_classes == 5 else f" (of {num_classes} classes; only the labels of trees are mapped to fewer)"
        raise ValueError(f"label {shorten(label)} is out of range; valid: {', '.join(valid)}{hint}")
    return int(label)
