"""Sentences too long for memory are refused before anything is allocated for their arcs, in files and in input."""

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from allennlp.common.checks import ConfigurationError
from allennlp.models.archival import load_archive

from spigot_allennlp.data import (
    ConlluGraphsDatasetReader,
    SdpDatasetReader,
    SnliPairsDatasetReader,
    SstTreesDatasetReader,
)
from spigot_allennlp.predictors import DependencyGraphPredictor
from tests.conftest import FIXTURES


def conllu(length: int) -> str:
    rows = (f"{n}\tw\t_\t_\t_\t_\t{n - 1}\tx\t{n - 1}:x\t_\n" for n in range(1, length + 1))
    return "# sent_id = a\n" + "".join(rows) + "\n"


def sdp(length: int) -> str:
    return "#1\n" + "".join(f"{n}\tw\tw\tX\t-\t-\t_\n" for n in range(1, length + 1)) + "\n"


def snli(length: int) -> str:
    return json.dumps({"gold_label": "neutral", "sentence1": "w " * length, "sentence2": "w"}) + "\n"


def sst(length: int) -> str:
    return "2\t" + "w " * length + "\n"


READERS = [
    (ConlluGraphsDatasetReader, conllu),
    (SdpDatasetReader, sdp),
    (SstTreesDatasetReader, sst),
    (SnliPairsDatasetReader, snli),
]


@pytest.mark.parametrize(("reader", "make"), READERS)
def test_files(reader: Any, make: Any, tmp_path: Path):
    path = tmp_path / "file"
    path.write_text(make(3) + make(12).replace("a\n", "b\n").replace("#1\n", "#2\n"))
    assert len(list(reader(max_sentence_length=12).read(str(path)))) == 2
    line = make(3).count("\n") + 1
    with pytest.raises(ConfigurationError, match=f"{path}:{line}: .*has 12 words, .* max_sentence_length, 11;"):
        list(reader(max_sentence_length=11).read(str(path)))


@pytest.mark.parametrize(("reader", "make"), READERS)
def test_a_limit_that_is_none(reader: Any, make: Any):
    with pytest.raises(ConfigurationError, match="max_sentence_length is 0; valid: an integer >= 1"):
        reader(max_sentence_length=0)


@pytest.mark.parametrize("tokens", [True, False], ids=["tokens", "text"])
def test_predictions(tokens: bool):
    archive = load_archive(FIXTURES / "models" / "syntactic_parser.tar.gz")
    predictor = DependencyGraphPredictor(archive.model, archive.dataset_reader)
    length = 100_000
    tracemalloc.start()
    try:
        with pytest.raises(ConfigurationError, match=f"has {length} words.*begins with 'words"):
            # More characters, too, than spaCy takes by itself.
            predictor.predict_json({"tokens": ["words"] * length} if tokens else {"sentence": "wordswords " * length})
        assert tracemalloc.get_traced_memory()[1] < 2_000 * length
    finally:
        tracemalloc.stop()
    assert len(predictor.predict_json({"tokens": ["w"] * 100})["words"]) == 100


@pytest.mark.parametrize("connected", [True, False])
def test_paths_through_many_empty_nodes(connected: bool, tmp_path: Path):
    """There are 15! of them."""
    nodes = [f"1.{n}" for n in range(1, 16)]
    lines = ["1\tw\t_\t_\t_\t_\t0\troot\t0:root\t_"]
    for node in nodes:
        deps = "|".join(f"{other}:x" for other in (*(["0"] if connected else []), *nodes) if other != node)
        lines.append(f"{node}\tw\t_\t_\t_\t_\t_\t_\t{deps}\t_")
    lines.append("2\tw\t_\t_\t_\t_\t1\tdep\t1.1:x\t_")
    path = tmp_path / "file"
    path.write_text("\n".join(lines) + "\n\n")
    with pytest.raises(ConfigurationError, match=f"{path}:17: .*too many paths"):
        list(ConlluGraphsDatasetReader().read(str(path)))


def test_a_long_chain_of_empty_nodes(tmp_path: Path):
    lines = ["1\tw\t_\t_\t_\t_\t0\troot\t0:root\t_"]
    lines += [f"1.{n}\tw\t_\t_\t_\t_\t_\t_\t1.{n + 1}:x\t_" for n in range(1, 300)]
    lines += ["1.300\tw\t_\t_\t_\t_\t_\t_\t0:x\t_", "2\tw\t_\t_\t_\t_\t1\tdep\t1.1:x\t_"]
    path = tmp_path / "file"
    path.write_text("\n".join(lines) + "\n\n")
    with pytest.raises(ConfigurationError, match="too many paths"):
        list(ConlluGraphsDatasetReader().read(str(path)))
