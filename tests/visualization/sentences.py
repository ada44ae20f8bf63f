"""Pairs of a predicted and a gold sentence."""

from hypothesis import strategies as st

from spigot_allennlp.data import Sentence

# Markup, what XML has no place for, a lone surrogate (which JSON can hold), and what is wider than a character.
ODD = "aé漢🐕<>&;\"' \x00\x1f\u202e\ufffe\ud800"
LABELS = st.sampled_from(["subj", "obj", "mod<br>", "a|b"])


@st.composite
def sentences(draw, words=st.text(ODD, min_size=1, max_size=30)) -> tuple[Sentence, Sentence]:
    text = draw(st.lists(words, min_size=1, max_size=8))
    length = len(text)
    positions = range(1, length + 1)
    pairs = [(dependent, head) for dependent in positions for head in positions if dependent != head]

    def sentence() -> Sentence:
        arcs = draw(st.lists(st.sampled_from(pairs), unique=True, max_size=12)) if pairs else []
        return Sentence(
            words=text,
            # A head of every word but itself; not all of these are trees, as those of `single_head` are not.
            heads=[draw(st.sampled_from([head for head in range(length + 1) if head != word])) for word in positions],
            deprels=[draw(LABELS) for _ in positions],
            arcs={arc: draw(LABELS) for arc in arcs},
            tops=dict.fromkeys(draw(st.lists(st.sampled_from(positions), unique=True)), "root"),
        )

    return sentence(), sentence()


def cooks(**changes) -> Sentence:
    """Anna promised to cook, with the control of `cook` in the graph."""
    return Sentence(
        **{
            "words": ["Anna", "promised", "to", "cook"],
            "heads": [2, 0, 4, 2],
            "deprels": ["nsubj", "root", "mark", "xcomp"],
            "arcs": {(1, 2): "ARG1", (1, 4): "ARG1", (4, 2): "ARG2"},
            "tops": {2: "root"},
            **changes,
        }
    )
