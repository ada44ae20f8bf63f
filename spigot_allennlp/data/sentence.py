"""
One sentence with its dependency tree and its dependency graph: what the readers read and the writers write.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Optional, Union

from allennlp.common.checks import ConfigurationError
from allennlp.data import Token

ABSENT = "_"
"""What CoNLL-U and SDP write where a column has no value."""

ROOT_LABEL = "root"
"""The label of an edge from ROOT where the format has none (SDP marks top nodes without labelling them)."""

PARALLEL = "|"
"""Joins the labels of parallel edges. It separates the edges in DEPS, so no label there contains it."""

PATH = ">"
"""Joins the labels of the edges that a path through empty nodes has (`conj:and>nsubj`)."""


def coarse_label(label: str) -> str:
    """`nmod:of` -> `nmod`, `conj:and>nsubj:pass` -> `conj>nsubj`."""
    if PATH in label:
        return PATH.join(part.partition(":")[0] for part in label.split(PATH))
    return label.partition(":")[0]


@dataclass
class Sentence:
    """
    A sentence, its dependency tree and its dependency graph. Words are numbered from 1; 0 is ROOT.

    # Parameters

    words : `List[str]`
        Words of the sentence.
    lemmas : `List[str]`, optional (default = `"_"` for every word)
        Lemma of each word.
    pos_tags : `List[str]`, optional (default = `"_"` for every word)
        UPOS in CoNLL-U, POS in SDP.
    tags : `List[str]`, optional (default = `"_"` for every word)
        XPOS in CoNLL-U; in SDP the part of speech from the companion file.
    heads : `List[int]`, optional
        The head of each word in the tree; `None` where there is no tree.
    deprels : `List[str]`, optional
        The relation of each word to its head; `None` where there is no tree, or it is not labeled.
    arcs : `Dict[Tuple[int, int], str]`, optional
        `{(dependent, head): label}`, without the edges from ROOT; `None` where there is no graph. Parallel
        edges stand under one label, joined with `|` (as in `nsubj|obj`), and are written as separate edges
        again.
    tops : `Dict[int, str]`, optional
        `{word: label}` of the edges from ROOT; `None` where there is no graph.
    loops : `Dict[int, str]`, optional
        `{word: label}` of the paths through empty nodes that lead from a word to itself (`conj:and>nsubj`). They are
        written and evaluated like other edges, but no model predicts them.
    predicates : `List[int]`, optional
        The words that SDP marks as predicates; every head in `arcs` counts as one anyway.
    frames : `List[str]`, optional
        The frame (or sense) column of SDP.
    feats, misc : `List[str]`, optional
        Columns 6 and 10 of CoNLL-U, unparsed.
    multiword_tokens : `Dict[int, str]`, optional
        The lines of multiword tokens (`1-2`), unparsed, by the number of their first word.
    comments : `List[str]`, optional
        Comment lines, with their `#`.
    sentence_id : `str`, optional
        Identifier of the sentence.
    line : `int`, optional
        Line that the sentence begins on in its file; ignored in comparisons. `None` where it is from no file.
    """

    words: list[str]
    lemmas: Optional[list[str]] = None
    pos_tags: Optional[list[str]] = None
    tags: Optional[list[str]] = None
    heads: Optional[list[int]] = None
    deprels: Optional[list[str]] = None
    arcs: Optional[dict[tuple[int, int], str]] = None
    tops: Optional[dict[int, str]] = None
    loops: dict[int, str] = field(default_factory=dict)
    predicates: Optional[list[int]] = None
    frames: Optional[list[str]] = None
    feats: Optional[list[str]] = None
    misc: Optional[list[str]] = None
    multiword_tokens: dict[int, str] = field(default_factory=dict)
    comments: list[str] = field(default_factory=list)
    sentence_id: Optional[str] = None
    line: Optional[int] = field(default=None, compare=False)

    def __post_init__(self) -> None:
        length = len(self.words)
        for name in ("lemmas", "pos_tags", "tags", "frames", "feats", "misc"):
            if getattr(self, name) is None:
                setattr(self, name, [ABSENT] * length)
        self.check_lengths()
        if (self.arcs is None) != (self.tops is None):
            raise ConfigurationError("a graph needs both 'arcs' and 'tops' (either may be empty); only one was given")
        for dependent, head in self.arcs or ():
            if not (0 < dependent <= length and 0 < head <= length and dependent != head):
                raise ConfigurationError(
                    f"no graph can have the arc {head} -> {dependent}; arcs join two different words, "
                    f"numbered from 1 to {length} here (edges from ROOT stand in 'tops')"
                )

        for word in (*(self.tops or ()), *self.loops, *(self.predicates or ())):
            if not 0 < word <= length:
                raise ConfigurationError(
                    f"no graph can have the top node or predicate {word}; words are numbered from 1 to {length} here"
                )

    def check_lengths(self) -> None:
        """
        # Errors

        `ConfigurationError` where a list does not have one entry for each word.
        """
        for name in ("lemmas", "pos_tags", "tags", "frames", "feats", "misc", "heads", "deprels"):
            column = getattr(self, name)
            if column is not None and len(column) != len(self.words):
                raise ConfigurationError(
                    f"the sentence has {len(self.words)} words, but {len(column)} {name}; valid: one for each word"
                )

    def __len__(self) -> int:
        return len(self.words)

    @property
    def text(self) -> str:
        """What the comment `# text = ...` says, or the words with blanks between them."""
        texts = [comment[8:].strip() for comment in self.comments if comment.startswith("# text =")]
        return texts[0] if texts else " ".join(self.words)

    def edges(self) -> Iterator[tuple[int, int, str]]:
        """`(dependent, head, label)` of each edge of the graph, those from ROOT (head 0) and parallel ones included."""
        for word, labels in (self.tops or {}).items():
            yield from ((word, 0, label) for label in labels.split(PARALLEL))
        for word, labels in self.loops.items():
            yield from ((word, word, label) for label in labels.split(PARALLEL))
        for (dependent, head), labels in (self.arcs or {}).items():
            yield from ((dependent, head, label) for label in labels.split(PARALLEL))

    def to_json(self) -> dict[str, Any]:
        """
        What AllenNLP writes where it writes whole batches (`allennlp evaluate --predictions-output-file`). Arcs are
        triples, as JSON knows no tuples for keys.
        """
        arcs = None if self.arcs is None else [[*arc, label] for arc, label in sorted(self.arcs.items())]
        return {**vars(self), "arcs": arcs}

    @classmethod
    def from_tokens(cls, tokens: Sequence[Union[str, Token]]) -> "Sentence":
        """
        A sentence of plain words, or of tokens (AllenNLP's or spaCy's) whose `lemma_`, `pos_` and `tag_` are
        kept.
        """
        tokens = [Token(token) if isinstance(token, str) else token for token in tokens]
        return cls(
            words=[token.text for token in tokens],
            lemmas=[token.lemma_ or ABSENT for token in tokens],
            pos_tags=[token.pos_ or ABSENT for token in tokens],
            tags=[token.tag_ or ABSENT for token in tokens],
        )

    @classmethod
    def from_text(cls, text: str, tokens: Sequence[Token], following: Optional[str] = None) -> "Sentence":
        """
        A sentence of the tokens of a text, with what it takes to rebuild the text: a comment `# text = ...`, and in
        `misc` `SpaceAfter=No` where no space follows a token, or `SpacesAfter=...` where something else than one space
        does (`\\s` a space, `\\t` a tab, `\\n` and `\\r` line breaks, as UDPipe writes it).

        # Parameters

        text : `str`
            Text that was tokenized.
        tokens : `Sequence[Token]`
            Tokens with `idx`, their place in the text. Where they lack it, or the text has more than tokens and blanks,
            the sentence is the one given to `from_tokens`.
        following : `str`, optional (default = `None`)
            The blanks between the last token and the next sentence, if there is one.
        """
        sentence = cls.from_tokens(tokens)
        starts = [token.idx for token in tokens]
        if any(start is None or not text.startswith(token.text, start) for token, start in zip(tokens, starts)):
            return sentence
        stops = [start + len(token.text) for token, start in zip(tokens, starts)]
        gaps = [text[stop:start] for stop, start in zip(stops, starts[1:])]
        if any(gap.strip() for gap in gaps):
            return sentence
        words = [word + (" " if gap else "") for word, gap in zip(sentence.words, [*gaps, ""])]
        sentence.comments = [f"# text = {''.join(words)}"]
        sentence.misc = [_space_after(gap) for gap in [*gaps, " " if following is None else following]][: len(tokens)]
        return sentence

    def to_tokens(self) -> list[Token]:
        return [
            Token(text=word, lemma_=lemma, pos_=pos_tag, tag_=tag)
            for word, lemma, pos_tag, tag in zip(self.words, self.lemmas, self.pos_tags, self.tags, strict=True)
        ]


_BLANKS = {"\\": "\\\\", " ": "\\s", "\t": "\\t", "\n": "\\n", "\r": "\\r"}


def _space_after(gap: str) -> str:
    """What MISC says of the blanks after a token."""
    if gap == " ":
        return ABSENT
    return "SpacesAfter=" + "".join(_BLANKS.get(blank, blank) for blank in gap) if gap else "SpaceAfter=No"
