"""Archives from someone else run no code; damaged ones say so. All are made from the one in the fixtures."""

import gzip
import http.server
import io
import json
import os
import pickle
import shutil
import stat
import sys
import tarfile
import tempfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
import transformers
from allennlp.commands import main
from allennlp.common import Params, cached_transformers
from allennlp.common.checks import ConfigurationError
from allennlp.common.file_utils import cached_path
from allennlp.data import DataLoader, DatasetReader, Vocabulary
from allennlp.data.tokenizers import Tokenizer
from allennlp.models import Model
from allennlp.models.archival import archive_model, load_archive
from allennlp.nn import Activation
from allennlp.nn.initializers import Initializer
from allennlp.predictors import Predictor
from allennlp.training.optimizers import Optimizer

from spigot_allennlp.models import SyntacticParser, SyntacticThenSemantic
from spigot_allennlp.patches import untrusted
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
        refused(packed(parts), f"'{kind}' is not a ")
        assert not victim.exists()

    def test_data_loader(self, victim: Path):
        """`allennlp evaluate` makes one as the archive's config says."""
        sampler = {"type": "os.system", "command": f"touch '{victim}'"}
        with pytest.raises(ConfigurationError, match="is not a BatchSampler"):
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
        refused(packed(parts, member(name, size=1)), "outside of its directory")

    @pytest.mark.parametrize(
        ("kind", "match"),
        [
            (tarfile.SYMTYPE, "is a link or a device"),
            (tarfile.FIFOTYPE, "is a link or a device"),
            (tarfile.CHRTYPE, "is a link or a device"),
            (tarfile.LNKTYPE, "outside of its directory"),
        ],
    )
    def test_links_and_devices(self, kind: bytes, match: str, parts: Path):
        refused(packed(parts, member("vocabulary/link", type=kind, linkname="../../etc/passwd")), match)


class TestUnpacking:
    """Everything that cached-path extracts passes the same guard."""

    def chain(self, tmp_path: Path) -> list[tarfile.TarInfo]:
        """Symbolic links that lead from anywhere to the root directory, and from there to `tmp_path`."""
        links = [member("l0", type=tarfile.SYMTYPE, linkname=".")]
        links += [member(f"l{i}", type=tarfile.SYMTYPE, linkname=f"l{i - 1}/..") for i in range(1, 16)]
        return [*links, member(f"l15{tmp_path}/escaped", size=1)]

    @pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
    def test_a_chain_of_links(self, mode: str, tmp_path: Path):
        path = tmp_path / "chain.tar"
        with tarfile.open(path, mode) as archive:
            for info in self.chain(tmp_path):
                archive.addfile(info, io.BytesIO(b"x" * info.size))
        with pytest.raises(ConfigurationError, match="'l0' in chain.tar is a link or a device"):
            cached_path(path, cache_dir=tmp_path / "cache", extract_archive=True)
        assert not (tmp_path / "escaped").exists()

    def test_commands(self, parts: Path, tmp_path: Path):
        path = packed(parts, *self.chain(tmp_path))
        for arguments in (
            ["cached-path", "--extract-archive", str(path), "-d", str(tmp_path)],
            ["diff", *[str(path)] * 2],
        ):
            with (
                mock.patch.object(sys, "argv", ["allennlp", *arguments]),
                pytest.raises(ConfigurationError, match="'l0'"),
            ):
                main()
        assert not (tmp_path / "escaped").exists()

    def test_vocabularies_and_shards(self, parts: Path, tmp_path: Path):
        path = packed(parts, *self.chain(tmp_path))
        with pytest.raises(ConfigurationError, match="'l0'"):
            Vocabulary.from_files(str(path))
        reader = DatasetReader.from_params(Params({"type": "sharded", "base_reader": {"type": "conllu_graphs"}}))
        with pytest.raises(ConfigurationError, match="'l0'"):
            list(reader.read(str(path)))
        assert not (tmp_path / "escaped").exists()

    def test_zip(self, tmp_path: Path):
        path = tmp_path / "a.zip"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("../escaped", "x")
        with pytest.raises(ConfigurationError, match="'../escaped' in a.zip would be unpacked outside"):
            cached_path(path, cache_dir=tmp_path / "cache", extract_archive=True)

    def test_too_large(self, parts: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setenv("SPIGOT_MAX_UNPACKED_BYTES", "1000")
        refused(packed(parts), "unpacks to more than 1,000 bytes")

    def test_too_many(self, parts: Path):
        refused(packed(parts, *[member(str(number)) for number in range(10_000)]), "holds more than 10,000 files")

    def test_a_header_that_claims_gigabytes(self, tmp_path: Path):
        path = tmp_path / "model.tar.gz"
        with gzip.open(path, "w") as file:
            file.write(member("x", type=tarfile.XHDTYPE, size=2**33).tobuf(tarfile.GNU_FORMAT) + bytes(2**20))
        refused(path, "a header in model.tar.gz claims 8,589,934,592 bytes")

    def test_what_is_fine(self, parts: Path, tmp_path: Path):
        """Files without permissions, as root would unpack them too, become ordinary files."""
        info = member("vocabulary/more.txt", mode=0o4000, uid=7, size=1)
        directory = Path(cached_path(packed(parts, info), cache_dir=tmp_path / "cache", extract_archive=True))
        assert stat.S_IMODE((directory / info.name).stat().st_mode) == 0o644
        assert (directory / info.name).stat().st_uid == os.getuid()


@pytest.fixture(scope="module")
def transformer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A local one, whose weights would leave a file beside it if they were unpickled."""
    directory = tmp_path_factory.mktemp("transformer")
    config = transformers.BertConfig(
        vocab_size=7, hidden_size=4, num_hidden_layers=1, num_attention_heads=1, intermediate_size=4
    )
    config.save_pretrained(directory)
    (directory / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\nb\n")
    weights = transformers.BertModel(config).state_dict()
    torch.save({**weights, "more": Malicious(directory / "was here")}, directory / "pytorch_model.bin")
    return directory


class TestTransformers:
    """Config of strangers with a transformer, whose weights are a pickle that runs code."""

    def embedder(self, transformer: Path, parts: Path, **keys: Any) -> Path:
        embedder = {"type": "pretrained_transformer_mismatched", "model_name": str(transformer), **keys}
        change_config(
            parts, lambda config: config["model"].update(text_field_embedder={"token_embedders": {"tokens": embedder}})
        )
        return packed(parts)

    @pytest.fixture(autouse=True)
    def an_old_torch(self, monkeypatch: pytest.MonkeyPatch):
        """As before torch 2.6, where `torch.load` unpickles anything by default."""
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")

    def test_weights(self, transformer: Path, parts: Path):
        refused(self.embedder(transformer, parts), "pytorch_model.bin|UnpicklingError|weights_only")
        assert not (transformer / "was here").exists()

    @pytest.mark.parametrize(
        ("key", "value"),
        [("weights_only", False), ("cache_dir", "elsewhere"), ("quantization_config", {}), ("config", "x")],
    )
    def test_arguments(self, key: str, value: Any, transformer: Path, parts: Path):
        archive = self.embedder(transformer, parts, transformer_kwargs={key: value})
        refused(archive, f"its config gives BertConfig '{key}'; valid in an archive: .*hidden_dropout_prob")
        assert not (transformer / "was here").exists()

    @pytest.mark.parametrize("key", ["cache_dir", "vocab_file", "proxies"])
    def test_arguments_of_the_tokenizer(self, key: str, transformer: Path, parts: Path):
        indexer = {"type": "pretrained_transformer", "model_name": str(transformer), "tokenizer_kwargs": {key: "x"}}
        change_config(parts, lambda config: config["dataset_reader"].update(token_indexers={"tokens": indexer}))
        refused(packed(parts), f"its config gives AutoTokenizer '{key}'; valid in an archive: .*model_max_length")

    def test_override_weights(self, transformer: Path, parts: Path):
        keys = {"override_weights_file": str(transformer / "pytorch_model.bin")}
        refused(self.embedder(transformer, parts, **keys), "weights_only|UnpicklingError")
        with pytest.raises(pickle.UnpicklingError):
            # In training, too.
            cached_transformers.get(str(transformer), True, **keys)
        with pytest.raises(pickle.UnpicklingError):
            Initializer.from_params(
                Params({"type": "pretrained", "weights_file_path": str(transformer / "pytorch_model.bin")})
            )
        assert not (transformer / "was here").exists()

    def test_other_pickles(self, victim: Path):
        with (
            untrusted.loading("x"),
            pytest.raises(ConfigurationError, match="it would read a pickle with pathlib.Path"),
        ):
            pickle.loads(pickle.dumps(Malicious(victim)))
        assert not victim.exists()
        pickle.loads(pickle.dumps(Malicious(victim)))
        assert victim.exists()

    def test_what_is_fine(self, transformer: Path, parts: Path, tmp_path: Path):
        shutil.copytree(transformer, tmp_path / "fine")
        weights = transformers.BertModel(transformers.BertConfig.from_pretrained(transformer)).state_dict()
        torch.save(weights, tmp_path / "fine" / "pytorch_model.bin")
        keys = {"transformer_kwargs": {"hidden_dropout_prob": 0.5}, "tokenizer_kwargs": {"do_lower_case": True}}
        # Nothing is wrong with the transformer; the weights of the archive are not of this model.
        refused(self.embedder(tmp_path / "fine", parts, **keys), "Unexpected keys: .*token_embedder_characters")


class TestNothingIsFetched:
    @pytest.fixture
    def server(self) -> Iterator[tuple[str, list[str]]]:
        """Its address, and what it was asked for."""
        asked = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                asked.append(self.path)
                self.send_error(404)

            do_GET = do_HEAD

            def log_message(self, *_: Any) -> None:
                pass

        with http.server.HTTPServer(("127.0.0.1", 0), Handler) as running:
            threading.Thread(target=running.serve_forever, daemon=True).start()
            yield f"http://127.0.0.1:{running.server_port}/model", asked
            running.shutdown()

    @pytest.mark.parametrize("place", ["archive", "module", "transformer", "tokenizer"])
    def test_an_address_in_a_config(self, place: str, server: tuple[str, list[str]], parts: Path):
        address, asked = server

        def change(config: dict[str, Any]) -> None:
            model = config["model"]
            if place == "archive":
                config["model"] = {"type": "from_archive", "archive_file": address}
            elif place == "module":
                model["encoder"] = {"_pretrained": {"archive_file": address, "module_path": "encoder"}}
            elif place == "transformer":
                embedder = {"type": "pretrained_transformer", "model_name": address}
                model["text_field_embedder"] = {"token_embedders": {"tokens": embedder}}
            else:
                indexers = config["dataset_reader"]["token_indexers"]
                indexers["tokens"] = {"type": "pretrained_transformer", "model_name": address}

        change_config(parts, change)
        refused(packed(parts), f"names the address {address}; .*SPIGOT_ALLOW_DOWNLOADS=1")
        assert not asked

    def test_where_the_caller_allows_it(
        self, server: tuple[str, list[str]], parts: Path, monkeypatch: pytest.MonkeyPatch
    ):
        address, asked = server
        monkeypatch.setenv("SPIGOT_ALLOW_DOWNLOADS", "1")
        archive = {"type": "from_archive", "archive_file": address}
        change_config(parts, lambda config: config.update(model=archive))
        refused(packed(parts), f"cannot load the archive: {address}")
        assert asked == ["/model"]

    def test_what_the_caller_names(self, server: tuple[str, list[str]]):
        address, asked = server
        with pytest.raises(ConfigurationError, match=f"{address}: cannot load the archive: {address}"):
            load_archive(address)
        assert asked == ["/model"]

    def test_a_pipeline_of_spacy(self, parts: Path):
        tokenizer = {"type": "spacy", "language": "not_installed"}
        reader = {"type": "text_classification_json", "tokenizer": tokenizer}
        change_config(parts, lambda config: config.update(dataset_reader=reader))
        refused(packed(parts), "a pipeline of spaCy that is not installed")


class TestWhatAConfigMayNotSay:
    @pytest.mark.parametrize(
        ("place", "key"),
        [
            (("model",), "vocab"),
            (("model",), "serialization_dir"),
            (("dataset_reader",), "serialization_dir"),
            (("data_loader",), "reader"),
            (("validation_data_loader",), "data_path"),
        ],
    )
    def test_what_the_loader_passes(self, place: tuple[str, ...], key: str, parts: Path):
        def change(config: dict[str, Any]) -> None:
            for name in place:
                config = config.setdefault(name, {})
            config[key] = {"type": "from_files", "directory": "elsewhere.tar.gz"}

        change_config(parts, change)
        refused(packed(parts), f"its config has '.*{key}'.*, which is for the ")

    def test_a_class_whose_module_is_not_imported(self, parts: Path):
        assert "this" not in sys.modules
        change_config(parts, lambda config: config["model"].update(type="this.Model"))
        refused(packed(parts), "this is not imported. If you trust it, import it first: --include-package this")
        assert "this" not in sys.modules

    def test_jsonnet(self, parts: Path, tmp_path: Path):
        """It would read any file, and the environment."""
        (tmp_path / "secret").write_text("secret")
        (parts / "config.json").write_text(f"{{dataset_reader: importstr '{tmp_path / 'secret'}', model: 0}}")
        refused(packed(parts), "config.json:1:2: no JSON")


def test_an_archive_is_written_at_once(parts: Path, tmp_path: Path):
    def interrupted(*_: Any, **__: Any) -> None:
        (part,) = parts.glob("*.part")
        assert part.stat().st_size == 0
        assert path.read_text() == "the last one"
        raise KeyboardInterrupt

    path = parts / "model.tar.gz"
    path.write_text("the last one")
    (parts / "weights.th").rename(parts / "best.th")
    with mock.patch.object(tarfile.TarFile, "add", interrupted), pytest.raises(KeyboardInterrupt):
        archive_model(parts)
    assert path.read_text() == "the last one"
    assert not list(parts.glob("*.part"))
    assert archive_model(parts) == str(path)
    assert isinstance(load_archive(path).model, SyntacticParser)


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
