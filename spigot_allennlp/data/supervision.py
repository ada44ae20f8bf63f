from typing import NamedTuple, Tuple


class Supervision(NamedTuple):
    """
    A layer of annotation that a model learns from. A model's `supervision()` returns a dictionary from names of fields
    to these; the trainer refuses data in which no instance has such a field.

    # Parameters

    name : `str`
        Plural noun for the annotation, as in "no sentence has graphs".
    where : `str`
        Place of the annotation in files.
    instead : `str`
        Advice for data without it.
    metrics : `Tuple[str, ...]`, optional (default = `()`)
        Metrics that compare with it.
    essential : `bool`, optional (default = `True`)
        Whether validation data need it even if they are not of the same corpora, and no metric above is the trainer's
        `validation_metric`.
    """

    name: str
    where: str
    instead: str
    metrics: Tuple[str, ...] = ()
    essential: bool = True


GRAPHS = Supervision(
    "graphs",
    "CoNLL-U: column 9, DEPS; SDP: from the column 'top' on",
    "for trees alone the model 'syntactic_parser'",
)

TREES = Supervision(
    "trees",
    "CoNLL-U: column 7, HEAD; SDP: a companion file",
    "for graphs alone the model 'syntactic_then_semantic'",
    metrics=("uas", "las"),
)

LABELS = Supervision(
    "labels",
    "text: before the sentence; JSON lines: the key 'label' or 'gold_label'",
    "`allennlp predict`, for data without labels",
)
