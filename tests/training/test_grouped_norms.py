"""`grad_norm` by groups of parameters: each is clipped as if it were alone."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from allennlp.commands.train import train_model
from allennlp.common import Params
from allennlp.common.checks import ConfigurationError
from allennlp.data.data_loaders import SimpleDataLoader
from allennlp.models import Model
from allennlp.training import GradientDescentTrainer, TrainerCallback

import spigot_allennlp  # noqa: F401
from spigot_allennlp.training import ResumableTrainer
from tests.running import forked_command
from tests.training.small import configuration, write_corpus

SYNTAX = "^syntactic_head\\."
GROUPS = {SYNTAX: 0.5, "default": 0.25}


@TrainerCallback.register("record_gradients")
class RecordGradients(TrainerCallback):
    """What is left of each group's gradient after clipping, and the norm that the trainer reports."""

    def on_batch(self, trainer: GradientDescentTrainer, *args: Any, is_training: bool, **kwargs: Any) -> None:
        if not is_training:
            return
        norms = {
            name: torch.stack([p.grad.norm() for n, p in trainer.model.named_parameters() if of(n)]).norm().item()
            for name, of in (("syntax", is_syntax), ("rest", lambda n: not is_syntax(n)))
        }
        with open(Path(self.serialization_dir) / "norms.jsonl", "a") as file:
            file.write(json.dumps({**norms, "reported": kwargs["batch_grad_norm"]}) + "\n")


def is_syntax(name: str) -> bool:
    return name.startswith("syntactic_head.")


def train(path: Path, run: str, **trainer: Any) -> Model:
    corpus = write_corpus(path / "corpus.conllu")
    config = configuration(corpus, trainer={"num_epochs": 1, **trainer})
    return train_model(Params(config), path / run)


@pytest.mark.parametrize("accumulation", [1, 2])
def test_each_group_is_clipped_to_its_own_norm(tmp_path, accumulation):
    steps = {"num_gradient_accumulation_steps": accumulation, "callbacks": ["record_gradients"]}
    train(tmp_path, "run", grad_norm=GROUPS, **steps)
    train(tmp_path, "free", grad_norm=1e9, **steps)
    clipped, free = (
        [json.loads(line) for line in (tmp_path / run / "norms.jsonl").read_text().splitlines()]
        for run in ("run", "free")
    )
    assert len(clipped) == 2 // accumulation
    # The first update of both runs begins with the same parameters.
    for name, limit in (("syntax", 0.5), ("rest", 0.25)):
        assert free[0][name] > limit
        assert clipped[0][name] == pytest.approx(limit, rel=1e-4)
    assert clipped[0]["reported"] == pytest.approx(free[0]["reported"], rel=1e-4)


def test_one_group_is_one_norm(tmp_path):
    one = train(tmp_path, "one", grad_norm=0.3)
    default = train(tmp_path, "default", grad_norm={"default": 0.3})
    for expected, parameter in zip(one.parameters(), default.parameters()):
        torch.testing.assert_close(parameter, expected)


def toy(norms: Any, scaler: bool = False) -> ResumableTrainer:
    torch.manual_seed(0)

    class Toy(Model):
        def __init__(self) -> None:
            super().__init__(None)
            self.parser = torch.nn.Linear(3, 2)
            self.graph = torch.nn.Linear(2, 1)

        def forward(self, x: torch.Tensor) -> Any:
            return {"loss": (self.graph(self.parser(x).tanh()) * 100).square().mean()}

    model = Toy()
    trainer = ResumableTrainer(
        model,
        torch.optim.SGD(model.parameters(), lr=1.0),
        SimpleDataLoader([], 1),
        cuda_device=-1,
        grad_norm=norms,
        num_epochs=1,
    )
    if scaler:
        trainer._scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
    return trainer


def test_scaled_losses_are_clipped_after_unscaling():
    plain, scaled = toy({"parser": 0.5, "graph": 2.0}), toy({"parser": 0.5, "graph": 2.0}, scaler=True)
    x = torch.ones(4, 3)
    plain.model(x)["loss"].backward()
    scaled._scaler.scale(scaled.model(x)["loss"]).backward()
    assert scaled.rescale_gradients() == pytest.approx(plain.rescale_gradients())
    for ours, expected in zip(scaled.model.parameters(), plain.model.parameters()):
        torch.testing.assert_close(ours.grad, expected.grad)
    assert torch.stack([p.grad.norm() for p in scaled.model.parser.parameters()]).norm() == pytest.approx(0.5)


def test_a_group_without_a_gradient_is_left_alone():
    trainer = toy({"parser": 0.5, "graph": 2.0})
    (trainer.model.parser(torch.ones(4, 3)).sum() * 10).backward()
    assert trainer.rescale_gradients() > 0.5
    assert trainer.model.graph.weight.grad is None
    trainer.optimizer.zero_grad()
    assert trainer.rescale_gradients() == 0.0


def test_one_adam_is_an_adam_for_each_group():
    """Steps of either part alone: the averages of the other one, and its count of steps, stay as they are."""
    together = toy({"parser": 0.5, "graph": 2.0}).model
    apart = copy.deepcopy(together)
    one = torch.optim.Adam(together.parameters(), lr=0.1)
    each = [torch.optim.Adam(part.parameters(), lr=0.1) for part in (apart.parser, apart.graph)]
    for step in range(6):
        part = step % 3 == 0
        for model in (together, apart):
            model.zero_grad()
            states = torch.full((4, 3), float(step + 1))
            loss = model.parser(states) if part else model.graph(states[:, :2])
            loss.square().sum().backward()
        one.step()
        each[0 if part else 1].step()
    for ours, expected in zip(together.parameters(), apart.parameters()):
        torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize(
    ("norms", "message"),
    [
        ({"^syntactic_parser": 1.0, "default": 1.0}, "'\\^syntactic_parser' matches no parameter that is trained"),
        ({"": 1.0, "default": 1.0}, "'default' matches no parameter that is trained"),
        (
            {"syntactic_head": 1.0, "arc_scorer": 1.0},
            "'syntactic_head', 'arc_scorer' all match the parameter 'syntactic_head",
        ),
        ({"syntactic_head": 1.0}, "no pattern matches .* such as 'text_encoder.*valid: the key 'default'"),
        ({"syntactic_head": -1.0, "default": 1.0}, "grad_norm of 'syntactic_head' is -1.0; valid: a number > 0"),
        ({"(": 1.0}, r"'\(' is not a regular expression"),
    ],
)
def test_groups_that_make_no_sense_are_refused(tmp_path, norms, message):
    with pytest.raises(ConfigurationError, match=message):
        train(tmp_path, "run", grad_norm=norms)


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch was built without it")
def test_two_workers_clip_as_one_does(tmp_path):
    corpus = write_corpus(tmp_path / "corpus.conllu")
    states = []
    for name, batch_size, workers in (("one", 8, {}), ("two", 4, {"distributed": {"cuda_devices": [-1, -1]}})):
        trainer = {"num_epochs": 2, "grad_norm": GROUPS}
        config = {**configuration(corpus, batch_size=batch_size, trainer=trainer), **workers}
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(config))
        run = ["-s", tmp_path / name / "run", "--include-package", "spigot_allennlp"]
        done = forked_command(tmp_path / name, "train", path, *run)
        assert done.returncode == 0, done.output
        states.append(torch.load(tmp_path / name / "run" / "best.th"))
    for name, expected in states[0].items():
        torch.testing.assert_close(states[1][name], expected, msg=name)
