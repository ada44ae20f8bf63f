"""The commands as a user types them, in directories of their own, on a small part of the fixtures."""

import json
import math
import re
import sys
from pathlib import Path
from typing import Any, Dict

import pytest
import torch

from spigot_allennlp.data import parse_conllu, parse_sdp
from tests.conftest import FIXTURES, PROJECT_ROOT
from tests.running import Finished, command, forked_command

CONFIGS = PROJECT_ROOT / "training_configs" / "syntactic_then_semantic"
NUM_EPOCHS = 3
LEARNING_RATE = 0.01

# As in `-o`: a parser so small that a run takes about a second after its imports.
TINY = {
    "model.text_field_embedder.token_embedders.tokens.embedding_dim": 4,
    "model.encoder": {"type": "lstm", "input_size": 20, "hidden_size": 6, "bidirectional": True},
    "model.graph_head.label_dim": 4,
    "trainer.num_epochs": NUM_EPOCHS,
    "trainer.optimizer.lr": LEARNING_RATE,
}

CRASH = '''
import os
from allennlp.training import TrainerCallback

@TrainerCallback.register("crash")
class Crash(TrainerCallback):
    """The machine goes down, in the first run only, when an epoch is over and its checkpoint written."""
    def on_epoch(self, trainer, metrics, epoch, is_primary=True, **kwargs):
        if os.environ.get("CRASH") and epoch == 1:
            os._exit(75)
'''


def overrides(**more: Any) -> str:
    return json.dumps({**TINY, **more})


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Dict[str, Path]:
    """The first sentences of the fixtures, by the names of the variables that the configs read."""
    directory = tmp_path_factory.mktemp("data")
    paths = {}
    for variable, part, number in (("SPIGOT_TRAIN_DATA", "train", 40), ("SPIGOT_VALIDATION_DATA", "dev", 10)):
        blocks = (FIXTURES / "graphs" / f"{part}.conllu").read_text().split("\n\n")[:number]
        paths[variable] = directory / f"{part}.conllu"
        paths[variable].write_text("\n\n".join(blocks) + "\n\n")
    return paths


@pytest.fixture(scope="module")
def run(data: Dict[str, Path], tmp_path_factory) -> Dict[str, Any]:
    """A training that breaks off, found through `--include-package`; and its recovery, through `.allennlp_plugins`."""
    cwd = tmp_path_factory.mktemp("train")
    (cwd / "crash.py").write_text(CRASH)
    options = overrides(
        **{
            "trainer.callbacks": ["crash"],
            "trainer.learning_rate_scheduler": {"type": "cosine", "t_initial": 10},
            "model.syntactic_loss_weight": {"type": "linear", "start": 1.0, "end": 0.0, "num_steps": 1000},
            "data_loader.batch_sampler.batch_size": 8,
            # One batch: the loss is a mean of the batches', and batches of about equal length are drawn with noise.
            "validation_data_loader": {"batch_size": 10},
        }
    )
    train = ["train", CONFIGS / "spigot.jsonnet", "-s", "run", "-o", options]
    packages = ["--include-package", "spigot_allennlp", "--include-package", "crash"]
    broken_off = command(cwd, *train, *packages, CRASH=1, **data)
    first_epoch = cwd / "run" / "metrics_epoch_0.json"
    written = first_epoch.stat().st_mtime_ns if first_epoch.exists() else None
    (cwd / ".allennlp_plugins").write_text("spigot_allennlp\ncrash\n")
    recovered = command(cwd, *train, "--recover", **data)
    return {"cwd": cwd, "broken off": broken_off, "recovered": recovered, "written": written}


@pytest.fixture(scope="module")
def archive(run: Dict[str, Any]) -> Path:
    assert run["recovered"].returncode == 0, run["recovered"].output
    return run["cwd"] / "run" / "model.tar.gz"


class TestTrain:
    def test_it_was_broken_off(self, run):
        assert run["broken off"].returncode == 75, run["broken off"].output
        assert "Epoch 0/2" in run["broken off"].output

    def test_it_went_on_where_it_was(self, run, archive):
        directory = archive.parent
        assert (directory / "metrics_epoch_0.json").stat().st_mtime_ns == run["written"]
        assert "Epoch 2/2" in run["recovered"].output
        metrics = json.loads((directory / "metrics.json").read_text())
        assert metrics["epoch"] == NUM_EPOCHS - 1
        assert 0 <= metrics["best_validation_labeled_f1"] <= 1 and 0 < metrics["best_validation_uas"] <= 1

    def test_schedules_went_on_too(self, archive):
        state = torch.load(max(archive.parent.glob("training_state_*.th"), key=lambda path: path.stat().st_mtime))
        (group,) = state["optimizer"]["param_groups"]
        # Stepped at the end of each epoch.
        epochs = {round(LEARNING_RATE * (1 + math.cos(math.pi * epoch / 10)) / 2, 9) for epoch in (2, 3)}
        assert round(float(group["lr"]), 9) in epochs
        weights = torch.load(max(archive.parent.glob("model_state_*.th"), key=lambda path: path.stat().st_mtime))
        batches_per_epoch = 5
        assert weights["syntactic_loss_weight.step"] in (2 * batches_per_epoch, 3 * batches_per_epoch)

    def test_overrides_and_external_variables_took_effect(self, archive, data):
        config = json.loads((archive.parent / "config.json").read_text())
        assert config["train_data_path"] == str(data["SPIGOT_TRAIN_DATA"])
        assert config["model"]["encoder"]["hidden_size"] == 6
        assert config["model"]["estimator"] == {"type": "spigot", "step_size": 1.0, "max_gradient_norm": 1.0}

    @pytest.mark.parametrize("which", ["broken off", "recovered"])
    def test_no_warnings_of_third_parties(self, run, which):
        output = run[which].output
        assert not re.findall(r"\w*Warning\b.*", output)
        for offender in ("torchvision", "pkg_resources", "weights_only", "GradScaler", "Python version", "numba"):
            assert offender not in output

    def test_from_a_script(self, data, tmp_path):
        (tmp_path / "script.py").write_text(
            "import sys\n"
            "import spigot_allennlp\n"
            "from allennlp.commands.train import train_model_from_file\n"
            "train_model_from_file(sys.argv[1], 'run', overrides=sys.argv[2])\n"
        )
        options = overrides(**{"trainer.num_epochs": 1})
        config = CONFIGS / "gold_syntax.jsonnet"
        done = command(tmp_path, "script.py", config, options, program=[sys.executable], **data)
        assert done.returncode == 0, done.output
        metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
        assert "best_validation_labeled_f1" in metrics
        assert (tmp_path / "run" / "model.tar.gz").exists()


class TestEvaluate:
    def test_metrics_and_predictions(self, archive, data, tmp_path):
        done = command(
            tmp_path,
            *("evaluate", archive, data["SPIGOT_VALIDATION_DATA"], "--include-package", "spigot_allennlp"),
            *("--output-file", "metrics.json", "--predictions-output-file", "predictions.jsonl"),
        )
        assert done.returncode == 0, done.output
        assert not re.findall(r"\w*Warning\b.*", done.output)
        metrics = json.loads((tmp_path / "metrics.json").read_text())
        best = json.loads((archive.parent / "metrics.json").read_text())
        for name in ("labeled_f1", "unlabeled_f1", "uas", "las", "loss"):
            assert metrics[name] == pytest.approx(best[f"best_validation_{name}"], abs=1e-4)
        batches = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
        assert sum(len(batch["words"]) for batch in batches) == 10


class TestPredict:
    TEXT = "The poet slept.\n\nAnna saw the naïve cook 🐕.\n   \nStop\n"

    def test_plain_text(self, archive, tmp_path):
        (tmp_path / "input.txt").write_text(self.TEXT, encoding="utf-8")
        done = command(
            tmp_path,
            *("predict", archive, "input.txt", "--include-package", "spigot_allennlp", "--silent"),
            *("--output-file", "output.conllu", "--predictor-args", '{"output_format": "conllu"}'),
        )
        assert done.returncode == 0, done.output
        assert not re.findall(r"\w*Warning\b.*", done.output)
        with (tmp_path / "output.conllu").open(encoding="utf-8") as file:
            sentences = list(parse_conllu(file, "output.conllu"))
        assert [" ".join(sentence.words) for sentence in sentences] == [
            "The poet slept .",
            "Anna saw the naïve cook 🐕 .",
            "Stop",
        ]
        assert all(sentence.heads is not None and sentence.arcs is not None for sentence in sentences)

    def predict(self, tmp_path: Path, archive: Path, *arguments: Any) -> Finished:
        return forked_command(tmp_path, "predict", archive, *arguments)

    def test_json_lines_in_batches(self, archive, tmp_path):
        lines = [json.dumps(line) for line in ({"sentence": "The poet slept."}, {"tokens": ["Anna", "slept"]})]
        (tmp_path / "input.jsonl").write_text("\n".join([*lines, "Stop now."]) + "\n")
        outputs = []
        for size in (1, 2):
            name = f"output{size}.jsonl"
            done = self.predict(
                tmp_path, archive, "input.jsonl", "--batch-size", size, "--output-file", name, "--silent"
            )
            assert done.returncode == 0, done.output
            outputs.append((tmp_path / name).read_text())
        assert outputs[0] == outputs[1]
        words = [json.loads(line)["words"] for line in outputs[0].splitlines()]
        assert words == [["The", "poet", "slept", "."], ["Anna", "slept"], ["Stop", "now", "."]]

    @pytest.mark.parametrize("output_format", ["conllu", "sdp"])
    def test_a_native_file(self, archive, data, tmp_path, output_format):
        path = data["SPIGOT_VALIDATION_DATA"]
        done = self.predict(
            tmp_path,
            archive,
            *(path, "--use-dataset-reader", "--output-file", "output", "--silent", "--batch-size", 4),
            *("--predictor-args", json.dumps({"output_format": output_format})),
        )
        assert done.returncode == 0, done.output
        assert "could" not in done.output  # That the loss could not be split by sentences.
        parse = parse_conllu if output_format == "conllu" else parse_sdp
        with (tmp_path / "output").open() as file, path.open() as gold:
            sentences, expected = list(parse(file, "output")), list(parse_conllu(gold, "gold"))
        assert [s.words for s in sentences] == [s.words for s in expected]
        assert [s.sentence_id for s in sentences] == [s.sentence_id for s in expected]

    def test_a_native_file_in_another_format(self, archive, tmp_path):
        done = self.predict(
            tmp_path,
            archive,
            *(FIXTURES / "graphs" / "dev.sdp", "--use-dataset-reader", "--output-file", "output", "--silent"),
            *("-o", json.dumps({"dataset_reader.type": "sdp", "dataset_reader.labels": None})),
        )
        assert done.returncode != 0
        assert "SdpDatasetReader" in done.output or "labels" in done.output

    @pytest.mark.parametrize(
        "line, message",
        [
            ('{"sentence": "Stop', "input.txt:3: the line begins with '{' but is not JSON"),
            ('{"sentence": ""}', "with at least one word"),
        ],
    )
    def test_refused(self, archive, tmp_path, line, message):
        (tmp_path / "input.txt").write_text(f"Stop.\n\n{line}\n")
        done = self.predict(tmp_path, archive, "input.txt")
        assert done.returncode != 0
        assert message in done.output


class TestRefused:
    """The last line of what is printed says where it is and what would be right."""

    def train(self, cwd: Path, data: Dict[str, Path], **more: Any) -> Finished:
        arguments = ["train", CONFIGS / "spigot.jsonnet", "-s", cwd / "run", "-o", overrides(**more)]
        return forked_command(cwd, *arguments, **data)

    def last_line(self, done: Finished) -> str:
        assert done.returncode != 0
        return done.output.rstrip().splitlines()[-1]

    ROW = "1\tStop\tstop\tVERB\tVB\t_\t0\troot\t0:root\t_\n"

    @pytest.mark.parametrize(
        "content, message",
        [
            ("1\tStop\tstop\tVERB\n", ":1: found 4 columns; expected ten: ID FORM LEMMA"),
            (ROW.replace("\t0\t", "\t7\t"), ":1: head 7 is out of range; expected 0 (the root) to 1 (the last word)"),
            (ROW.replace("0:root", "7:root"), ":1: head 7 is out of range; expected 0 (the root) to 1 (the last word)"),
            (ROW + ROW.replace("1\t", "2\t", 1).replace("\t0\t", "\t2\t"), ":2: the heads form a cycle (2 -> 2)"),
            (ROW + ROW.replace("1\t", "2\t", 1), ":2: words 1 and 2 both have head 0; the tree must have exactly one"),
            (ROW + ROW, ":2: token number 1 occurs twice; expected 2"),
            (f"# sent_id = a\n{ROW}\n# sent_id = a\n{ROW}", ":4: duplicate sentence id 'a'; line 1 has it already"),
            (ROW.replace("Stop", "St\udcffop"), ":1: byte 5 of the line is not valid UTF-8"),
            (ROW + "2\tnow\tno", ":2: found 3 columns; expected ten"),
            ("", ": the file holds no sentences"),
            ("\n\n", ": the file holds no sentences"),
        ],
        ids=range(11),
    )
    def test_data(self, data, tmp_path, content, message):
        path = tmp_path / "bad.conllu"
        path.write_text(content, encoding="utf-8", errors="surrogateescape")
        done = self.train(tmp_path, {**data, "SPIGOT_TRAIN_DATA": path})
        assert f"{path}{message}" in self.last_line(done)

    @pytest.mark.parametrize(
        "more, message",
        [
            ({"train_data_path": "none.conllu"}, "none.conllu: there is no such file"),
            ({"model.estimator": "spigott"}, "spigott not in acceptable choices for type: ['spigot', "),
            ({"model.estimator.step": 1}, "Spigot has no key 'step'; valid: center_gradient, forward_map"),
            ({"model.estimator.step_size": 0}, "step_size is 0"),
            ({"dataset_reader.lables": "full"}, "ConlluGraphsDatasetReader has no key 'lables'; valid: "),
            ({"model.sintax": "gold"}, "SyntacticThenSemantic has no key 'sintax'; valid: "),
        ],
        ids=lambda value: "".join(value) if isinstance(value, dict) else "",
    )
    def test_config(self, data, tmp_path, more, message):
        assert message in self.last_line(self.train(tmp_path, data, **more))

    def test_missing_files(self, archive, tmp_path):
        done = forked_command(tmp_path, "evaluate", archive, "none.conllu")
        assert "none.conllu: there is no such file" in self.last_line(done)
        done = forked_command(tmp_path, "predict", archive, "none.txt")
        assert "none.txt" in self.last_line(done)
        done = forked_command(tmp_path, "train", "none.jsonnet", "-s", "run")
        assert "none.jsonnet" in self.last_line(done)


def test_a_label_in_dev_that_train_lacks(archive, data, tmp_path):
    """Counts as an error, of the tree and of the graph."""
    text = data["SPIGOT_VALIDATION_DATA"].read_text()
    (tmp_path / "dev.conllu").write_text(re.sub(r"\bdet\b", "unheard", text))
    done = forked_command(tmp_path, "evaluate", archive, "dev.conllu", "--output-file", "metrics.json")
    assert done.returncode == 0, done.output
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    best = json.loads((archive.parent / "metrics.json").read_text())
    assert metrics["uas"] == pytest.approx(best["best_validation_uas"], abs=1e-4)
    assert metrics["unlabeled_f1"] == pytest.approx(best["best_validation_unlabeled_f1"], abs=1e-4)
    assert metrics["las"] < best["best_validation_las"]
