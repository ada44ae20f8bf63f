"""
From tensors to what predictors print.
"""

from typing import Any, Dict, List, NamedTuple, Optional

import torch

from spigot_allennlp.modules import Relations


def readable_trees(
    heads: torch.Tensor, relations: Optional[torch.Tensor], words: List[List[str]], names: Optional[Relations] = None
) -> Dict[str, List[List[Any]]]:
    """
    # Parameters

    heads, relations : `torch.Tensor`
        `(batch, 1 + words)`.
    words : `List[List[str]]`
        The words of each sentence.
    names : `Relations`, optional (default = `None`)
        The names of `relations`.

    # Returns

    `Dict[str, List[List[Any]]]`
        `heads`, and `deprels` where there are relations: for each sentence a list over its words.
    """
    lengths = [len(sentence) for sentence in words]
    trees = {"heads": [row[1 : n + 1] for row, n in zip(heads.tolist(), lengths)]}
    if relations is not None:
        trees["deprels"] = names.names(relations, lengths)
    return trees


class ReadableGraphs(NamedTuple):
    """
    # Parameters

    tops : `List[List[int]]`
        The top nodes of each sentence. Words count from 1.
    arcs : `List[List[Dict[str, Any]]]`
        The arcs of each sentence: `dependent`, `head`, `label`, and what is said of an arc's value.
    """

    tops: List[List[int]]
    arcs: List[List[Dict[str, Any]]]


def readable_graphs(graph: torch.Tensor, names: Relations, kind: str, values: torch.Tensor) -> ReadableGraphs:
    """
    # Parameters

    graph : `torch.Tensor`
        `(batch, 1 + words, 1 + words)`, a graph of indices (see `Relations`).
    names : `Relations`
        The names of the labels.
    kind : `str`
        Kind of the values: `"score"` or `"probability"`.
    values : `torch.Tensor`
        `(batch, 1 + words, 1 + words)`.
    """
    readable = ReadableGraphs([[] for _ in graph], [[] for _ in graph])
    index = (graph >= 0).nonzero(as_tuple=True)
    for (sentence, dependent, head), label, value in zip(
        torch.stack(index, -1).tolist(), graph[index].tolist(), values[index].tolist()
    ):
        if head == 0:
            readable.tops[sentence].append(dependent)
        else:
            arc = {"dependent": dependent, "head": head, "label": names.name(label), kind: round(value, 4)}
            readable.arcs[sentence].append(arc)
    return readable
