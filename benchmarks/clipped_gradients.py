"""
Why SPIGOT fails where the latent variable is one of K (Mihaylova et al. 2020, section 5.1): it projects what each
instance wants before the wishes of many are averaged.

    .venv/bin/python benchmarks/clipped_gradients.py

From a vertex, the projection keeps of an instance's gradient only what speaks for other values than the present one.
Of the instances of one cluster, which a linear scorer can hardly tell apart, the others' objections are lost,
whatever the step size. `averaged` is SPIGOT that gets, in place of each instance's `g`, the mean of `g` over the
instances of the same gold cluster and the same present value; nothing else is changed. Writes
`clipped_gradients.json` and `clipped_gradients.md` to `studies/`.
"""

import argparse
import statistics
from typing import Dict, Sequence, Tuple

import torch
from allennlp.common import Params
from allennlp.data import Batch, DatasetReader, Vocabulary
from reporting import HERE, machine, table, write

from spigot_allennlp.estimators import Estimator, PulledBack, Spigot, StraightThrough
from spigot_allennlp.models import LatentClusterClassifier

Data = Dict[str, Dict[str, torch.Tensor]]


class AveragedSpigot(PulledBack):
    """
    SPIGOT with `g` averaged before the projection; an experiment, as it knows the gold clusters.

    # Parameters

    clusters : `torch.Tensor`
        `(batch,)`: the gold clusters of the one batch.
    step_size : `float`
    """

    def __init__(self, clusters: torch.Tensor, step_size: float) -> None:
        super().__init__(step_size=step_size)
        self.clusters = clusters

    def _stepper(self, scores, mask, structure):
        step = super()._stepper(scores, mask, structure)
        groups = self.clusters * scores.size(-1) + scores.argmax(-1)

        def averaged_step(point: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
            sums = gradient.new_zeros(int(groups.max()) + 1, gradient.size(-1)).index_add(0, groups, gradient)
            return step(point, sums[groups] / groups.bincount()[groups].unsqueeze(-1))

        return averaged_step


def read(num_clusters: int, split: str, vocab: Vocabulary) -> Dict[str, torch.Tensor]:
    """The split as one batch."""
    reader = DatasetReader.from_params(Params({"type": "latent_clusters", "num_clusters": num_clusters, "seed": 0}))
    batch = Batch(reader.read(split))
    batch.index_instances(vocab)
    tensors = batch.as_tensor_dict()
    return {name: tensors[name] for name in ("features", "cluster", "label")}


def train(
    estimator: Estimator, data: Data, num_clusters: int, seed: int, scorer_rate: float, updates: int
) -> Tuple[float, float]:
    """Accuracy and V-measure of the validation data after the update of the highest accuracy, of every hundredth."""
    torch.manual_seed(seed)
    model = LatentClusterClassifier(Vocabulary(), num_clusters, estimator=estimator)
    optimizer = torch.optim.Adam(
        [
            {"params": model.scorer.parameters(), "lr": scorer_rate},
            {"params": model.decoder.parameters(), "lr": 0.01},
        ]
    )
    best = (0.0, 0.0)
    for update in range(1, updates + 1):
        model.train()
        optimizer.zero_grad()
        model(**data["train"])["loss"].backward()
        optimizer.step()
        if update % 100 == 0:
            model.eval()
            model.get_metrics(reset=True)
            with torch.no_grad():
                model(**data["validation"])
            metrics = model.get_metrics(reset=True)
            best = max(best, (metrics["accuracy"], metrics["v_measure"]))
    return best


def in_percent(scores: Sequence[float]) -> str:
    """Accuracy and V-measure."""
    accuracy, v_measure = scores
    return f"{100 * accuracy:.1f} / {100 * v_measure:.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-clusters", type=int, default=3)
    parser.add_argument("--updates", type=int, default=2500)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    arguments = parser.parse_args()
    torch.set_num_threads(1)

    vocab = Vocabulary()
    data = {split: read(arguments.num_clusters, split, vocab) for split in ("train", "validation")}
    estimators = {
        "`spigot`, step .1": lambda: Spigot(step_size=0.1),
        "averaged, step .1": lambda: AveragedSpigot(data["train"]["cluster"], step_size=0.1),
        "averaged, step 1": lambda: AveragedSpigot(data["train"]["cluster"], step_size=1.0),
        "`ste`": StraightThrough,
    }
    runs = [
        {
            "estimator": name,
            "scorer_rate": scorer_rate,
            "seeds": [
                train(estimator(), data, arguments.num_clusters, seed, scorer_rate, arguments.updates)
                for seed in arguments.seeds
            ],
        }
        for scorer_rate in (0.01, 0.0002)
        for name, estimator in estimators.items()
    ]
    rows = [
        [
            run["estimator"],
            run["scorer_rate"],
            *map(in_percent, run["seeds"]),
            in_percent([statistics.mean(values) for values in zip(*run["seeds"], strict=True)]),
        ]
        for run in runs
    ]
    header = ["", "the scorer's learning rate", *(f"seed {seed}" for seed in arguments.seeds), "mean"]
    write(
        HERE / "studies",
        "clipped_gradients",
        f"Gradients that are clipped one by one, K = {arguments.num_clusters}",
        {"machine": machine(1), "updates": arguments.updates, "runs": runs},
        {
            f"Accuracy / V-measure of the validation data, {arguments.updates} updates, the decoder's learning rate "
            "0.01": table(header, rows)
        },
    )


if __name__ == "__main__":
    main()
