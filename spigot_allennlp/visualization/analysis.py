"""
What can be drawn of an instance: as a model predicts it, or as its gold annotation has it.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Optional

from allennlp.common.checks import ConfigurationError
from allennlp.data import Instance
from allennlp.data.fields import LabelField, MetadataField

from spigot_allennlp.data import Sentence
from spigot_allennlp.data.sentence import ROOT_LABEL
from spigot_allennlp.data.text_files import malformed, read_lines

_WORDS = "words"


@dataclass
class Analysis:
    """
    # Parameters

    sentences : `Dict[str, Sentence]`, optional (default = `{}`)
        Sentences by the prefix of `words` in the name of the model's output: `""` for the one of most models,
        `"premise_"` and `"hypothesis_"` where there are two.
    label : `str`, optional (default = `None`)
        Predicted class.
    probabilities : `Dict[str, float]`, optional (default = `{}`)
        Probability of each class.
    """

    sentences: dict[str, Sentence] = field(default_factory=dict)
    label: Optional[str] = None
    probabilities: dict[str, float] = field(default_factory=dict)

    @property
    def sentence_id(self) -> Optional[str]:
        return next((sentence.sentence_id for sentence in self.sentences.values()), None)


def analysis_from_output(output: dict[str, Any]) -> Analysis:
    """
    # Parameters

    output : `Dict[str, Any]`
        One line of what `allennlp predict` writes. Read are `words`, `heads`, `deprels`, `arcs`, `tops` (also with
        something before it, the same for all of a sentence), `sentence_id`, `label` and `probabilities`, as far as they
        are there. Words count from 1; 0 is ROOT, and a head -1 none.

    # Errors

    `ConfigurationError` for values that do not fit one another.
    """
    analysis = Analysis()
    for name in output:
        if name.endswith(_WORDS):
            prefix = name.removesuffix(_WORDS)
            analysis.sentences[prefix] = _sentence(output, prefix)
    label, probabilities = output.get("label"), output.get("probabilities")
    if label is not None:
        _require(isinstance(label, (str, int)), "label", label, "a name")
        analysis.label = str(label)
    if isinstance(probabilities, list):
        # For classes without names.
        probabilities = {str(index): probability for index, probability in enumerate(probabilities)}
    if probabilities is not None:
        numbers = isinstance(probabilities, dict) and all(
            isinstance(probability, (int, float)) for probability in probabilities.values()
        )
        _require(numbers, "probabilities", probabilities, "an object of numbers by class")
        analysis.probabilities = probabilities
    return analysis


def analysis_from_instance(instance: Instance) -> Analysis:
    """
    The gold annotation that a dataset reader has found: the sentence in the metadata, and the label.
    """
    analysis = Analysis()
    for instance_field in instance.fields.values():
        if isinstance(instance_field, MetadataField) and isinstance(instance_field.metadata, dict):
            metadata = instance_field.metadata
            for name in metadata:
                if name.endswith(_WORDS):
                    prefix = name.removesuffix(_WORDS)
                    graph = metadata.get(f"{prefix}graph")
                    analysis.sentences[prefix] = graph or Sentence(words=list(metadata[name]))
    label = instance.fields.get("label")
    if isinstance(label, LabelField):
        analysis.label = str(label.label)
    return analysis


def read_predictions(file_path: str) -> list[Analysis]:
    """
    Reads JSON lines, as `allennlp predict` writes them; blank lines are skipped.

    # Errors

    `ConfigurationError` for a file with none, and for a line that is no such object (`path:line: problem`).
    """
    analyses = []
    for number, line in enumerate(read_lines(file_path), 1):
        if line.isspace():
            continue
        try:
            output = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise malformed(
                file_path, number, f"is not JSON ({error}); expected a line of `allennlp predict`"
            ) from None
        if not isinstance(output, dict) or not any(name.endswith(_WORDS) for name in output):
            problem = (
                f"expected an object with the key 'words', as `allennlp predict` writes it; found {line.strip()[:80]}"
            )
            raise malformed(file_path, number, problem)
        try:
            analyses.append(analysis_from_output(output))
        except ConfigurationError as error:
            raise malformed(file_path, number, str(error)) from None
    if not analyses:
        raise ConfigurationError(f"{file_path}: the file holds no predictions")
    return analyses


def _sentence(output: dict[str, Any], prefix: str) -> Sentence:
    words = output[f"{prefix}words"]
    are_words = isinstance(words, list) and words and all(isinstance(word, str) for word in words)
    _require(are_words, f"{prefix}words", words, "a list of words (one sentence on each line)")
    length = len(words)

    def column(name: str, valid: Iterable[Any], expected: str) -> Optional[list[Any]]:
        values = output.get(f"{prefix}{name}")
        if values is not None:
            fits = isinstance(values, list) and len(values) == length and all(_is_in(value, valid) for value in values)
            _require(fits, f"{prefix}{name}", values, f"a list of {length} {expected}, one for each word")
        return values

    heads = column("heads", range(-1, length + 1), f"numbers from -1 to {length}")
    for word, head in enumerate(heads or (), 1):
        _require(
            head != word,
            f"{prefix}heads",
            heads,
            f"heads other than the word itself; word {word} is its own head",
        )
    deprels = column("deprels", str, "names") if heads is not None else None
    arcs, tops = output.get(f"{prefix}arcs"), output.get(f"{prefix}tops")
    if arcs is not None:
        positions = range(1, length + 1)
        expected = f"a list of objects with 'dependent' and 'head', from 1 to {length}, and 'label'"
        fits = isinstance(arcs, list) and all(
            isinstance(arc, dict)
            and _is_in(arc.get("dependent"), positions)
            and _is_in(arc.get("head"), positions)
            and isinstance(arc.get("label"), str)
            for arc in arcs
        )
        _require(fits, f"{prefix}arcs", arcs, expected)
        tops = [] if tops is None else tops
        are_tops = isinstance(tops, list) and all(_is_in(top, positions) for top in tops)
        _require(are_tops, f"{prefix}tops", tops, f"a list of numbers from 1 to {length}")
    sentence_id = output.get("sentence_id")
    return Sentence(
        words=words,
        heads=heads,
        deprels=deprels,
        arcs=None if arcs is None else {(arc["dependent"], arc["head"]): arc["label"] for arc in arcs},
        tops=None if arcs is None else dict.fromkeys(tops, ROOT_LABEL),
        sentence_id=None if sentence_id is None else str(sentence_id),
    )


def _is_in(value: Any, valid: Any) -> bool:
    """Whether a value of JSON is of a type, or in a range: `true` is not a number."""
    if isinstance(valid, type):
        return isinstance(value, valid)
    return type(value) is int and value in valid


def _require(condition: bool, name: str, value: Any, expected: str) -> None:
    if not condition:
        found = json.dumps(value, ensure_ascii=False)
        raise ConfigurationError(
            f"'{name}' is {found if len(found) <= 80 else found[:80] + '...'}; expected {expected}"
        )
