"""Archives from someone else run no code; damaged ones say so. All are made from the one in the fixtures."""

import io
import json
import os
import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from allennlp.commands import main
from allennlp.common import Params
from allennlp.common.checks import ConfigurationError
from allennlp.data import DataLoader, Vocabulary
from allennlp.data.tokenizers import Tokenizer
from allennlp.models import Model
from allennlp.models.archival import load_archive
from allennlp.nn import Activation
from allennlp.predictors import Predictor
from allennlp.training.optimizers import Optimizer

from spigot_allennlp.models import SyntacticParser, SyntacticThenSemantic
from tests.conftest import FIXTURES

GOOD = FIXTURES / "models" / "syntactic_parser.tar.gz"


class Malicious:
    """Unpickled, it leaves a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self):
        return Path.touch, (self._path,)


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    """The good archive, unpacked."""
    directory = tmp_path / "parts"
    with tarfile.open(GOOD) as archive:
        # (Python 3.11 has had `filter` since 3.11.4 only, and this is an archive of our own.)
        archive.extractall(directory)
    return directory


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    return tmp_path / "was here"


def packed(parts: Path, *more: tarfile.TarInfo) -> Path:
    path = parts.with_name("model.tar.gz")
    with tarfile.open(path, "w:gz") as archive:
        for part in parts.iterdir():
            archive.add(part, part.name)
        for member in more:
            archive.addfile(member, io.BytesIO(b"x" * member.size))
    return path


def member(name: str, **attributes: Any) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    for attribute, value in attributes.items():
        setattr(info, attribute, value)
    return info


def change_config(parts: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    config = json.loads((parts / "config.json").read_text())
    change(config)
    (parts / "config.json").write_text(json.dumps(config))


def refused(path: Path, match: str) -> None:
    """With one error, that names the archive; nothing that was unpacked is left."""
    temporary = path.parent / "temporary"
    temporary.mkdir()
    with mock.patch.object(tempfile, "tempdir", str(temporary)):
        with pytest.raises(ConfigurationError, match=match) as error:
            load_archive(path)
    assert str(path) in str(error.value)
    assert not list(temporary.iterdir())


class TestNothingRuns:
    def test_weights(self, parts: Path, victim: Path):
        weights = torch.load(parts / "weights.th")
        torch.save({**weights, "more": Malicious(victim)}, parts / "weights.th")
        refused(packed(parts), "could run code")
        assert not victim.exists()

    @pytest.mark.parametrize(
        "kind", ["os.system", "subprocess.getoutput", "builtins.eval", "tests.patches.test_archives.Malicious"]
    )
    @pytest.mark.parametrize("place", ["dataset_reader", "model", "token indexer", "encoder", "vocabulary"])
    def test_config(self, kind: str, place: str, parts: Path, victim: Path):
        arguments = {"command": f"touch '{victim}'", "cmd": f"touch '{victim}'", "path": str(victim)}
        argument = {"os": "command", "subprocess": "cmd", "builtins": "source", "tests": "path"}[kind.partition(".")[0]]
        params = {"type": kind, argument: arguments.get(argument, f"open({str(victim)!r}, 'w')")}

        def change(config: dict[str, Any]) -> None:
            if place == "token indexer":
                config["dataset_reader"]["token_indexers"] = {"tokens": params}
            elif place == "encoder":
                config["model"]["encoder"] = params
            else:
                config[place] = params

        change_config(parts, change)
        refused(packed(parts), f"'{kind}' is no ")
        assert not victim.exists()

    def test_data_loader(self, victim: Path):
        """`allennlp evaluate` makes one as the archive's config says."""
        sampler = {"type": "os.system", "command": f"touch '{victim}'"}
        with pytest.raises(ConfigurationError, match="is no BatchSampler"):
            DataLoader.from_params(Params({"batch_sampler": sampler}), reader=None, data_path="")
        assert not victim.exists()

    @pytest.mark.parametrize("place", ["model", "dataset_reader"])
    def test_remote_code(self, place: str, parts: Path):
        indexer = {"type": "pretrained_transformer", "model_name": "me/mine"}
        indexer["tokenizer_kwargs"] = {"trust_remote_code": True}
        change_config(parts, lambda config: config[place].update({"token_indexers": {"tokens": indexer}}))
        refused(packed(parts), f"{place}.token_indexers.tokens.tokenizer_kwargs.trust_remote_code")

    @pytest.mark.parametrize(
        "name", ["../escaped", "/tmp/escaped", "vocabulary/../../escaped", "..\\escaped", "C:/escaped"]
    )
    def test_paths(self, name: str, parts: Path):
        refused(packed(parts, member(name, size=1)), "outside of the archive's own directory")

    @pytest.mark.parametrize(
        ("kind", "match"),
        [
            (tarfile.SYMTYPE, "a link or a device"),
            (tarfile.FIFOTYPE, "a link or a device"),
            (tarfile.CHRTYPE, "a link or a device"),
            (tarfile.LNKTYPE, "outside of the archive's own directory"),
        ],
    )
    def test_links_and_devices(self, kind: bytes, match: str, parts: Path):
        refused(packed(parts, member("vocabulary/link", type=kind, linkname="../../etc/passwd")), match)


class TestWhatStillWorks:
    def test_an_archive_with_a_file_twice(self, parts: Path):
        os.link(parts / "weights.th", parts / "again.th")
        assert isinstance(load_archive(packed(parts)).model, SyntacticParser)

    @pytest.mark.parametrize(
        ("kind", "name"),
        [
            (Model, "spigot_allennlp.models.syntactic_parser.SyntacticParser"),
            (Tokenizer, "allennlp.data.tokenizers.WhitespaceTokenizer"),
            (Optimizer, "torch.optim.SGD"),
            (Activation, "torch.nn.Mish"),
        ],
    )
    def test_paths_of_classes(self, kind: Any, name: str):
        found, _ = kind.resolve_class_name(name)
        assert found.__name__ == name.rpartition(".")[2]


class TestDamage:
    @pytest.mark.parametrize("fraction", [0.0, 0.01, 0.5, 0.99])
    def test_cut_short(self, fraction: float, tmp_path: Path):
        content = GOOD.read_bytes()
        path = tmp_path / "model.tar.gz"
        path.write_bytes(content[: int(fraction * len(content))])
        refused(path, "damaged, or no .tar.gz")

    def test_a_flipped_bit(self, tmp_path: Path):
        content = bytearray(GOOD.read_bytes())
        content[len(content) // 2] ^= 4
        path = tmp_path / "model.tar.gz"
        path.write_bytes(content)
        refused(path, "cannot load the archive")

    def test_something_else(self, tmp_path: Path):
        path = tmp_path / "model.tar.gz"
        path.write_text("<html>404</html>")
        refused(path, "damaged, or no .tar.gz")

    def test_no_file(self, tmp_path: Path):
        refused(tmp_path / "model.tar.gz", "not found")

    @pytest.mark.parametrize("name", ["config.json", "weights.th", "vocabulary"])
    def test_a_missing_part(self, name: str, parts: Path):
        (parts / name).rename(parts.with_name(name))
        refused(packed(parts), f"it lacks {name}; found ")

    def test_a_missing_namespace(self, parts: Path):
        (parts / "vocabulary" / "tokens.txt").unlink()
        refused(packed(parts), "tokens")

    def test_weights_cut_short(self, parts: Path):
        content = (parts / "weights.th").read_bytes()
        (parts / "weights.th").write_bytes(content[: len(content) // 2])
        refused(packed(parts), "the weights, weights.th, are damaged")

    def test_weights_of_another_shape(self, parts: Path):
        weights = torch.load(parts / "weights.th")
        name = next(name for name, value in weights.items() if value.dim() == 2)
        weights[name] = weights[name].T
        torch.save(weights, parts / "weights.th")
        refused(packed(parts), f"size mismatch for {name}")

    def test_weights_too_few(self, parts: Path):
        weights = torch.load(parts / "weights.th")
        name = next(iter(weights))
        del weights[name]
        torch.save(weights, parts / "weights.th")
        refused(packed(parts), name)

    @pytest.mark.parametrize(
        ("config", "match"),
        [
            ("", "config.json:1:1"),
            ("{", "config.json:1:2"),
            ("[1]", "no 'dataset_reader'"),
            ("null", "no 'dataset_reader'"),
            ("{}", "no 'dataset_reader'"),
            ('{"dataset_reader": {"type": "sdp"}}', "no 'model'"),
            ('{"dataset_reader": {"type": "sdp"}, "model": {"type": "parser"}}', "'parser' is not a registered name"),
        ],
    )
    def test_config(self, config: str, match: str, parts: Path):
        (parts / "config.json").write_text(config)
        refused(packed(parts), match)


@pytest.mark.parametrize("command", ["predict", "evaluate"])
def test_the_commands(command: str, tmp_path: Path):
    path = tmp_path / "model.tar.gz"
    path.write_bytes(GOOD.read_bytes()[:999])
    arguments = ["allennlp", command, str(path), str(FIXTURES / "graphs" / "dev.conllu")]
    arguments += ["--include-package", "spigot_allennlp"]
    with (
        mock.patch.object(sys, "argv", arguments),
        pytest.raises(ConfigurationError, match="model.tar.gz: cannot load"),
    ):
        main()


def test_other_ways_to_an_archive(tmp_path: Path):
    path = tmp_path / "model.tar.gz"
    path.write_bytes(b"")
    for load in (Model.from_archive, Predictor.from_path):
        with pytest.raises(ConfigurationError, match="model.tar.gz: cannot load"):
            load(str(path))


def test_what_is_kept_of_a_pre_trained_part_stays_in_the_directory(tmp_path: Path):
    directory = tmp_path / "run"
    directory.mkdir()
    part = {"type": "from_archive", "archive_file": str(GOOD)}
    params = {"type": "syntactic_then_semantic", "../outside": part, "inner": {"../../outside": part}, "kept": part}
    with pytest.raises(ConfigurationError):
        Model.from_params(Params(params), vocab=Vocabulary(), serialization_dir=str(directory))
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["kept.tar.gz"]


def test_a_pre_trained_part_from_a_serialization_directory(parts: Path, tmp_path: Path):
    part = {"type": "from_archive", "archive_file": str(parts)}
    params = {"type": "syntactic_then_semantic", "syntactic_parser": part}
    with mock.patch.object(Model, "from_params", classmethod(lambda cls, params, *args, **kwargs: params.as_dict())):
        built = SyntacticThenSemantic.from_params(Params(params), serialization_dir=str(tmp_path))
    assert built["syntactic_parser"]["archive_file"] == str(parts)
    assert type(Model.from_archive(str(parts))) is SyntacticParser
