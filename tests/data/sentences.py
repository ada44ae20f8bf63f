"""Random sentences with trees and graphs, random damage to files that hold them, and what readers say of it."""

import random
from collections.abc import Callable, Iterable, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from allennlp.common.checks import ConfigurationError
from hypothesis import strategies as st

from spigot_allennlp.data import Sentence


def tabbed(text: str) -> str:
    """Columns are set apart by single spaces in these tests, for legibility."""
    return "".join(line if line[:1] == "#" else line.replace(" ", "\t") for line in text.splitlines(True))


# Whatever a column can hold: anything but tabs, line breaks and (half) surrogates.
_CELLS = st.text(st.characters(blacklist_characters="\t\n\r", blacklist_categories=["Cs"]), min_size=1, max_size=6)
_LABELS = st.sampled_from(["nsubj", "conj:and", "conj:and>nsubj", "nmod:in_front_of", "ARG1", "#x", "-"])


@st.composite
def _trees(draw, length: int, single_root: bool):
    """Attaches the words, in random order, to ROOT or to one of those before."""
    order = draw(st.permutations(range(1, length + 1)))
    heads = [0] * length
    for index, word in enumerate(order[1:], 1):
        candidates = order[:index] if single_root else [0, *order[:index]]
        heads[word - 1] = draw(st.sampled_from(candidates))
    return heads


@st.composite
def sentences(draw, tree: bool, graph: bool, single_root: bool = True, sentence_id=None):
    length = draw(st.integers(1, 6))
    column = st.lists(_CELLS, min_size=length, max_size=length)
    pairs = [(dependent, head) for dependent in range(1, length + 1) for head in range(1, length + 1)]
    pairs = [(dependent, head) for dependent, head in pairs if dependent != head]
    arcs = tops = None
    if graph:
        kept = draw(st.lists(st.sampled_from(pairs), unique=True)) if pairs else []
        arcs = {pair: draw(_LABELS) for pair in kept}
        tops = dict.fromkeys(draw(st.lists(st.integers(1, length), unique=True)), "root")
    return Sentence(
        words=draw(column),
        lemmas=draw(column),
        pos_tags=draw(column),
        heads=draw(_trees(length, single_root)) if tree else None,
        deprels=draw(st.lists(_LABELS, min_size=length, max_size=length)) if tree else None,
        arcs=arcs,
        tops=tops,
        sentence_id=sentence_id,
    )


def damaged(text: str, generator: random.Random) -> bytes:
    """The text after one to three random edits of lines, columns or bytes."""
    data = text.encode("utf-8")
    for _ in range(generator.randint(1, 3)):
        separator = generator.choice([b"\n", b"\t", None])
        if separator is None:
            at = generator.randrange(len(data) + 1)
            byte = generator.choice([b"\xff", b"\x00", b"\xc3", *(bytes([c]) for c in b"\t\n\r#-.:|_012389+ >=x")])
            data = data[:at] + byte + data[at + generator.randint(0, 1) :]
            continue
        parts = data.split(separator)
        first, second = generator.randrange(len(parts)), generator.randrange(len(parts))
        edit = generator.choice(["delete", "double", "swap", "overwrite", "truncate"])
        if edit == "delete":
            del parts[first]
        elif edit == "double":
            parts.insert(second, parts[first])
        elif edit == "swap":
            parts[first], parts[second] = parts[second], parts[first]
        elif edit == "overwrite":
            parts[first] = parts[second]
        else:
            parts = parts[: first + 1]
        data = separator.join(parts)
    return data


@contextmanager
def refused_at(place: str, words: Sequence[str]):
    """What is done raises an error that begins with the place and has the words."""
    with pytest.raises(ConfigurationError) as error:
        yield
    assert str(error.value).startswith(place)
    for word in words:
        assert word in str(error.value)


def damage_is_refused(text: str, path: Path, read: Callable[[str], Iterable], number: int, *places: str) -> None:
    """
    Of many damaged files, some can be read and more than half cannot; the errors name the file (or one of `places`).
    """
    generator = random.Random(0)
    refused = 0
    for _ in range(number):
        path.write_bytes(damaged(tabbed(text), generator))
        try:
            list(read(str(path)))
        except ConfigurationError as error:
            assert str(error).startswith((f"{path}:", *places))
            refused += 1
    assert number / 2 < refused < number
