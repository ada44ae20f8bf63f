"""
What the trees of trained latent tree classifiers look like.

    .venv/bin/python benchmarks/latent_trees.py dev.txt runs/sentiment_study/runs/*-seed1-*/training/model.tar.gz

For each archive, means over the sentences: the share of the words that have the commonest head, and how much of the
variance of a sentence's arc scores a sum of a term for the dependent and one for the head explains. Where that is
nearly all, every word wants the same head.
"""

import argparse
from pathlib import Path
from typing import Any, List

import torch
from allennlp.data import Batch
from allennlp.models.archival import load_archive
from reporting import table

from spigot_allennlp.models import LatentTreeClassifier


def additive_share(scores: torch.Tensor) -> float:
    """The R^2 of the least-squares fit `a[dependent] + b[head]` to the scores `(words, 1 + words)` of one sentence."""
    words = len(scores)
    # No word is its own head.
    dependents, heads = (torch.arange(words).unsqueeze(-1) + 1 != torch.arange(words + 1)).nonzero(as_tuple=True)
    targets = scores[dependents, heads]
    targets = targets - targets.mean()
    terms = torch.cat(
        [
            torch.nn.functional.one_hot(dependents, words),
            torch.nn.functional.one_hot(heads, words + 1),
        ],
        dim=-1,
    ).to(scores.dtype)
    fit = terms @ torch.linalg.lstsq(terms, targets, driver="gelsd").solution
    return 1 - ((targets - fit).var() / targets.var()).item()


@torch.no_grad()
def describe(archive_file: Path, data: Path, count: int) -> List[Any]:
    """The row of an archive."""
    archive = load_archive(archive_file)
    model = archive.model.eval()
    if not isinstance(model, LatentTreeClassifier):
        raise SystemExit(f"{archive_file} has a {type(model).__name__}; valid: a 'latent_tree_classifier'")
    # A sentence of one word has one tree.
    instances = [instance for instance in archive.validation_dataset_reader.read(data) if len(instance["tokens"]) > 1]
    shares, commonest = [], []
    for instance in instances[:count]:
        batch = Batch([instance])
        batch.index_instances(model.vocab)
        tensors = batch.as_tensor_dict()
        states, _ = model.text_encoder(tensors["tokens"])
        shares.append(additive_share(model.arc_scorer(states)[0, 1:].double()))
        heads = model(**tensors)["heads"][0, 1:]
        commonest.append(heads.bincount().max().item() / len(heads))
    return [
        archive_file.parent.parent.name,
        len(shares),
        f"{100 * sum(commonest) / len(shares):.1f}",
        f"{100 * sum(shares) / len(shares):.2f}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="what the archives' readers read")
    parser.add_argument("archives", type=Path, nargs="+")
    parser.add_argument("--sentences", type=int, default=200, help="the first so many (default: 200)")
    arguments = parser.parse_args()
    rows = [describe(archive, arguments.data, arguments.sentences) for archive in arguments.archives]
    print(table(["run", "sentences", "words with the commonest head, %", "additive, % of variance"], rows))


if __name__ == "__main__":
    main()
