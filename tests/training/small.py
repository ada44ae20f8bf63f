"""
A parser that is trained in a second: a corpus of short sentences, and a configuration as a user would write it.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any, Optional

from allennlp.data import DatasetReader, Instance

from spigot_allennlp.data import ConlluGraphsDatasetReader

# Each word with its head, 0 for ROOT.
TREES = [
    [("dogs", 2), ("bark", 0)],
    [("the", 2), ("dog", 3), ("barked", 0)],
    [("Anna", 2), ("saw", 0), ("the", 4), ("cook", 2)],
    [("Anna", 2), ("praised", 0), ("a", 5), ("lovely", 5), ("dog", 2), ("today", 2)],
    [("cooks", 2), ("saw", 0), ("Anna", 2)],
    [("stop", 0)],
    [("a", 2), ("cook", 3), ("arrived", 0), ("today", 3)],
    [("the", 3), ("awful", 3), ("owner", 4), ("left", 0)],
]


def write_corpus(path: Path, with_trees: bool = True) -> Path:
    """All sentences have a graph: the arcs of the tree, and one from each word to the next."""
    blocks = []
    for number, words in enumerate(TREES):
        lines = [f"# sent_id = {number}"]
        for index, (word, head) in enumerate(words, start=1):
            relation = "root" if head == 0 else "dep" if head > index else "obj"
            graph = f"{head}:{relation}" + (f"|{index - 1}:next" if index > 1 and head != index - 1 else "")
            graph = "|".join(sorted(graph.split("|"), key=lambda arc: int(arc.partition(":")[0])))
            tree = (str(head), relation) if with_trees else ("_", "_")
            lines.append("\t".join([str(index), word, word, "X", "X", "_", *tree, graph, "_"]))
        blocks.append("\n".join(lines) + "\n\n")
    path.write_text("".join(blocks))
    return path


def configuration(
    corpus: Path,
    estimator: Any = "spigot",
    structure: Any = "projective_tree",
    dropout: float = 0.0,
    batch_size: int = 4,
    trainer: Optional[dict[str, Any]] = None,
    graph_head: Optional[dict[str, Any]] = None,
    **model: Any,
) -> dict[str, Any]:
    return {
        "random_seed": 1,
        "numpy_seed": 1,
        "pytorch_seed": 1,
        "dataset_reader": {"type": "conllu_graphs"},
        "train_data_path": str(corpus),
        "validation_data_path": str(corpus),
        "model": {
            "type": "syntactic_then_semantic",
            "text_field_embedder": {"token_embedders": {"tokens": {"type": "embedding", "embedding_dim": 6}}},
            "encoder": {"type": "lstm", "input_size": 6, "hidden_size": 5, "bidirectional": True},
            "graph_head": {"label_dim": 5, **(graph_head or {})},
            "dropout": dropout,
            "structure": structure,
            "estimator": estimator,
            **model,
        },
        "data_loader": {"batch_size": batch_size, "shuffle": False},
        "trainer": {
            "optimizer": {"type": "sgd", "lr": 0.01},
            "num_epochs": 2,
            "cuda_device": -1,
            **(trainer or {}),
        },
    }


@DatasetReader.register("every_other_tree")
class EveryOtherTree(ConlluGraphsDatasetReader):
    """Sentences in odd places have no tree: of two workers, the second one has none at all."""

    def text_to_instance(self, words: Any) -> Instance:
        if int(words.sentence_id) % 2:
            words = replace(words, heads=None, deprels=None)
        return super().text_to_instance(words)
