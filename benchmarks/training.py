"""
What a training step costs, estimator by estimator and phase by phase, with the models of `training_configs/treebank`.

    .venv/bin/python benchmarks/training.py --train train.conllu

Every batch is given to each of the models in turn, so that a machine that slows down slows all of them. Next to ours
stands structured attention on torch-struct's marginals (from the extra `benchmarks`; left out if it is missing).
Writes `training.json` and `training.md` next to this file.
"""

import argparse
import os
import statistics
import time
import warnings
from collections import defaultdict
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Callable, ContextManager, Dict, Iterator, List, Tuple

import torch
from allennlp.common import Params
from allennlp.common.util import prepare_environment
from allennlp.data import Batch, DatasetReader, Instance, Vocabulary
from allennlp.data.samplers import BatchSampler
from allennlp.models import Model
from allennlp.training.metrics import Metric
from allennlp.training.optimizers import Optimizer
from reporting import HERE, ROOT, bars_table, machine, table, version, write

from spigot_allennlp.models import SyntacticThenSemantic
from spigot_allennlp.structures import ProjectiveTree

TORCH_STRUCT = "marginals, torch-struct"
EXPERIMENTS = ("spigot", "pipeline", "ste", "marginals", "no_syntax", "gold_syntax")
PULL_BACK = "(pull-back)"
# The pull-back is part of the backward pass, hence the brackets.
PHASES = ("encode", "score", "syntactic loss", "structure", "downstream", "backward", PULL_BACK, "optimizer", "metrics")
# Batches that are not counted.
WARM_UP = 2


class TorchStructTree(ProjectiveTree):
    """
    Projective trees whose marginals, and the gradient through them, are torch-struct's.
    """

    def _marginals(self, scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        from torch_struct import DependencyCRF

        # Heads before dependents, and the arcs from ROOT on the diagonal.
        potentials = scores[:, 1:, 1:].transpose(1, 2)
        words = torch.eye(potentials.size(1), dtype=torch.bool)
        potentials = torch.where(words, scores[:, 1:, 0].unsqueeze(1), potentials)
        marginals = DependencyCRF(potentials, mask[:, 1:].sum(-1), multiroot=not self.single_root).marginals
        arcs = torch.nn.functional.pad(marginals.transpose(1, 2).masked_fill(words, 0.0), (1, 0, 1, 0))
        from_root = torch.nn.functional.pad(marginals.diagonal(0, 1, 2).unsqueeze(-1), (0, mask.size(1) - 1, 1, 0))
        return (arcs + from_root).masked_fill(~self.legal_parts(scores, mask), 0.0)


class Phases:
    """
    Seconds by phase, of the step that is going on.
    """

    def __init__(self) -> None:
        self.seconds: Dict[str, float] = defaultdict(float)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - begin

    def watch(self, owner: Any, method: str, name: str) -> None:
        """Count every call of this object's method to a phase."""
        original = getattr(owner, method)

        def watched(*arguments: Any, **keywords: Any) -> Any:
            with self(name):
                return original(*arguments, **keywords)

        setattr(owner, method, watched)

    def watched(self, metric: Metric, name: str) -> "WatchedMetric":
        return WatchedMetric(metric, lambda: self(name))


class WatchedMetric:
    """
    A metric whose calls are timed; that is looked up in its class and cannot be watched as methods are.
    """

    def __init__(self, metric: Metric, phase: Callable[[], ContextManager]) -> None:
        self._metric, self._phase = metric, phase

    def __call__(self, *arguments: Any) -> None:
        with self._phase():
            self._metric(*arguments)

    def get_metric(self, reset: bool = False) -> Any:
        return self._metric.get_metric(reset)


class Experiment:
    """
    A model with its optimiser, and the times of its steps.
    """

    def __init__(self, name: str, vocab: Vocabulary, data: str) -> None:
        config = "marginals" if name == TORCH_STRUCT else name
        params = read_config(config, data)
        prepare_environment(params)
        self.name = name
        self.model: SyntacticThenSemantic = Model.from_params(params.pop("model"), vocab=vocab)
        if name == TORCH_STRUCT:
            self.model.structure = TorchStructTree()
        self.model.train()
        trainer = params.pop("trainer")
        self.grad_norm = trainer.pop_float("grad_norm")
        self.optimizer = Optimizer.from_params(
            trainer.pop("optimizer"), model_parameters=list(self.model.named_parameters())
        )
        self.steps: List[Dict[str, float]] = []
        self._phases = phases = Phases()
        model = self.model
        phases.watch(model.text_encoder, "forward", "encode")
        if model.syntactic_head is not None:
            phases.watch(model.syntactic_head, "forward", "score")
            phases.watch(model.syntactic_head, "loss", "syntactic loss")
        phases.watch(model.structure, "argmax", "structure")
        phases.watch(model.structure, "marginals", "structure")
        # Nothing but a pull-back projects here.
        phases.watch(model.structure, "project", PULL_BACK)
        phases.watch(model.graph_head, "forward", "downstream")
        model._graph_f1 = phases.watched(model._graph_f1, "metrics")
        model._tree_scores = phases.watched(model._tree_scores, "metrics")
        phases.watch(model, "get_metrics", "metrics")

    def step(self, batch: Dict[str, Any]) -> None:
        """What AllenNLP's trainer does with a batch."""
        phases = self._phases
        phases.seconds.clear()
        wall, cpu = time.perf_counter(), time.process_time()
        with phases("optimizer"):
            self.optimizer.zero_grad(set_to_none=True)
        loss = self.model(**batch)["loss"]
        with phases("backward"):
            loss.backward()
        with phases("optimizer"):
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.grad_norm)
            self.optimizer.step()
        # For the progress bar, at every step.
        self.model.get_metrics()
        seconds = dict(phases.seconds)
        seconds["step"], seconds["cpu"] = time.perf_counter() - wall, time.process_time() - cpu
        seconds["other"] = seconds["step"] - sum(seconds.get(phase, 0.0) for phase in PHASES if phase != PULL_BACK)
        self.steps.append(seconds)

    def median(self, phase: str) -> float:
        return statistics.median(step.get(phase, 0.0) for step in self.steps)


def total_ratio(one: Experiment, other: Experiment) -> float:
    """The ratio of two models' times for all batches: batches of long sentences count most."""
    return sum(step["step"] for step in one.steps) / sum(step["step"] for step in other.steps)


def read_config(name: str, data: str) -> Params:
    values = {"SPIGOT_TRAIN_DATA": data, "SPIGOT_VALIDATION_DATA": data, "SPIGOT_SEED": "13370"}
    config = {"pipeline": "joint_pipeline"}.get(name, name)
    return Params.from_file(str(ROOT / "training_configs/treebank" / f"{config}.jsonnet"), ext_vars=values)


def paired_ratio(one: Experiment, other: Experiment, clock: str = "step") -> float:
    """The median, over batches, of the ratio of two models' times for the same batch."""
    return statistics.median(a[clock] / b[clock] for a, b in zip(one.steps, other.steps))


def measure_data(params: Params, data: str, num_sentences: int) -> Tuple[List[Instance], Vocabulary, Dict[str, float]]:
    """
    The instances, indexed, their vocabulary, and sentences per second.
    """
    reader = DatasetReader.from_params(params.pop("dataset_reader"))
    begin, read = time.perf_counter(), 0
    for _ in reader.read(data):
        read += 1
    speed = {"reading": read / (time.perf_counter() - begin)}
    instances = list(islice(reader.read(data), num_sentences))
    for instance in instances:
        reader.apply_token_indexers(instance)
    begin = time.perf_counter()
    vocab = Vocabulary.from_params(params.pop("vocabulary"), instances=instances)
    speed["vocabulary"] = len(instances) / (time.perf_counter() - begin)
    begin = time.perf_counter()
    for instance in instances:
        instance.index_fields(vocab)
    speed["indexing"] = len(instances) / (time.perf_counter() - begin)
    return instances, vocab, speed


def bound_note(attention: Experiment, spigot: Experiment) -> str:
    """How near the best possible pull-back would bring the ratio of the two to 2."""
    rest = [step["step"] - step.get(PULL_BACK, 0.0) for step in spigot.steps]
    free = statistics.median(step["step"] / alone for step, alone in zip(attention.steps, rest))
    free_in_all = sum(step["step"] for step in attention.steps) / sum(rest)
    return (
        f"With a pull-back that costs nothing, structured attention on torch-struct would take {free:.2f} SPIGOT steps "
        f"in the median batch and {free_in_all:.2f} over all batches: the rest is in both steps, and is embedding, "
        "LSTM, scorers, their backward passes and the optimiser.\n"
    )


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    fixtures = ROOT / "fixtures/graphs/train.conllu"
    parser.add_argument("--train", default=str(fixtures), help="CoNLL-U file with enhanced graphs (default: fixtures)")
    parser.add_argument("--sentences", type=int, default=1600, help="of the file, the first to train on")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=HERE, help="the directory to write to")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    warnings.filterwarnings("ignore", "(?s).*does not define `arg_constraints`", UserWarning)
    data = os.path.abspath(arguments.train)
    params = read_config("spigot", data)
    instances, vocab, speed = measure_data(params, data, arguments.sentences)
    print("sentences per second: " + ", ".join(f"{name} {rate:,.0f}" for name, rate in speed.items()), flush=True)
    sampler = BatchSampler.from_params(params.pop("data_loader").pop("batch_sampler"))
    # One batch more than once, in which compiled code is loaded.
    batches = list(sampler.get_batch_indices(instances))
    batches = batches[:WARM_UP] + batches

    names = list(EXPERIMENTS)
    if version("torch-struct") is None:
        print('torch-struct is not installed and left out; it comes with the extra "benchmarks" (see inference.py)')
    else:
        names.append(TORCH_STRUCT)
    experiments = {name: Experiment(name, vocab, data) for name in names}
    collation = []
    for number, batch in enumerate(batches):
        begin = time.perf_counter()
        tensors = Batch([instances[index] for index in batch]).as_tensor_dict()
        collation.append(time.perf_counter() - begin)
        for experiment in experiments.values():
            experiment.step(tensors)
        if number % 10 == 0:
            took = ", ".join(f"{name} {1e3 * e.steps[-1]['step']:.0f} ms" for name, e in experiments.items())
            print(f"batch {number} of {len(batches)}: {took}", flush=True)
    batches, collation = batches[WARM_UP:], collation[WARM_UP:]
    for experiment in experiments.values():
        del experiment.steps[:WARM_UP]
    speed["collation"] = len(instances) / sum(collation)

    spigot, pipeline = experiments["spigot"], experiments["pipeline"]
    against_pipeline, all_against_pipeline = paired_ratio(spigot, pipeline), total_ratio(spigot, pipeline)
    metrics = statistics.median(step["metrics"] / step["step"] for step in spigot.steps)
    against_attention, against_attention_text, notes = None, None, {}
    if TORCH_STRUCT in experiments:
        attention = experiments[TORCH_STRUCT]
        against_attention = paired_ratio(attention, spigot)
        against_attention_text = f"{against_attention:.2f}x"
        notes["What bounds the ratio to torch-struct"] = bound_note(attention, spigot)
    bars = [
        {
            "name": "a SPIGOT step against a pipeline step, median batch",
            "required": "at most 1.15x",
            "measured": f"{against_pipeline:.3f}x",
            "met": against_pipeline <= 1.15,
        },
        {
            "name": "a SPIGOT step against a pipeline step, over all batches",
            "required": "at most 1.15x",
            "measured": f"{all_against_pipeline:.3f}x",
            "met": all_against_pipeline <= 1.15,
        },
        {
            "name": "a SPIGOT step against structured attention on torch-struct",
            "required": "at least 2x faster",
            "measured": against_attention_text,
            "met": against_attention and against_attention >= 2,
        },
        {
            "name": "metrics, of a SPIGOT step",
            "required": "under 3%",
            "measured": f"{100 * metrics:.2f}%",
            "met": metrics < 0.03,
        },
        {
            "name": "reading",
            "required": "at least 5,000 sentences/s",
            "measured": f"{speed['reading']:,.0f}/s",
            "met": speed["reading"] >= 5000,
        },
    ]
    columns = ("step", *PHASES, "other")
    results = {
        "machine": machine(arguments.threads, ["torch-struct"]),
        "data": {"sentences": len(instances), "words": sum(len(instance["tokens"]) for instance in instances)},
        "bars": bars,
        "sentences_per_second": {
            **{name: len(instances) / sum(step["step"] for step in e.steps) for name, e in experiments.items()},
            **speed,
        },
        "ratio_to_pipeline": {name: paired_ratio(e, pipeline) for name, e in experiments.items()},
        "ratio_to_pipeline_all_batches": {name: total_ratio(e, pipeline) for name, e in experiments.items()},
        "ratio_to_pipeline_cpu": {name: paired_ratio(e, pipeline, "cpu") for name, e in experiments.items()},
        "median_ms": {
            name: {column: 1e3 * e.median(column) for column in (*columns, "cpu")} for name, e in experiments.items()
        },
    }
    sections = {
        "Bars": bars_table(bars),
        f"Training steps, batches of {len(batches[0])}": table(
            ["model", "sentences/s", "to pipeline, median batch", "to pipeline, all batches"],
            [
                [
                    name,
                    f"{results['sentences_per_second'][name]:.0f}",
                    f"{results['ratio_to_pipeline'][name]:.3f}x",
                    f"{results['ratio_to_pipeline_all_batches'][name]:.3f}x",
                ]
                for name in experiments
            ],
        ),
        "Median milliseconds of a step, by phase": table(
            ["model", *columns],
            [[name, *(f"{times[column]:.2f}" for column in columns)] for name, times in results["median_ms"].items()],
        )
        + "\nThe pull-back is part of the backward pass.\n",
        **notes,
        "Data": table(["stage", "sentences/s"], [[stage, f"{rate:,.0f}"] for stage, rate in speed.items()]),
    }
    write(arguments.out, "training", "Training steps", results, sections)


if __name__ == "__main__":
    main()
