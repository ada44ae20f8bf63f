"""Small parsers, built as from a config but without files."""

import copy
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Sequence

import torch
from allennlp.common import Params
from allennlp.data import Batch, DatasetReader, Instance, Vocabulary
from allennlp.models import Model

from tests.training.small import configuration


class Parser(NamedTuple):
    model: Model
    instances: List[Instance]

    def batch(self, instances: Optional[Sequence[Instance]] = None) -> Dict[str, Any]:
        batch = Batch(self.instances if instances is None else instances)
        batch.index_instances(self.model.vocab)
        return batch.as_tensor_dict()

    def forward(self, instances: Optional[Sequence[Instance]] = None) -> Dict[str, Any]:
        return self.model(**self.batch(instances))


def read(path: Path) -> List[Instance]:
    return list(DatasetReader.from_params(Params({"type": "conllu_graphs"})).read(str(path)))


def build(corpus: Path, vocab: Optional[Vocabulary] = None, **keys: Any) -> Parser:
    """`keys` are those of `configuration` and of the model. In evaluation mode, as `load_archive` leaves a model."""
    instances = read(corpus)
    vocab = vocab or Vocabulary.from_instances(instances)
    torch.manual_seed(0)
    # `from_params` empties what it reads.
    params = Params(copy.deepcopy(configuration(corpus, **keys)["model"]))
    model = Model.from_params(params, vocab=vocab)
    return Parser(model.eval(), instances)


def parser_keys(head: Optional[Dict[str, Any]] = None, **keys: Any) -> Dict[str, Any]:
    """A `syntactic_parser` as a part of a model's config; `head` are keys of its `syntactic_head`."""
    return {
        "type": "syntactic_parser",
        "text_field_embedder": {"token_embedders": {"tokens": {"type": "embedding", "embedding_dim": 6}}},
        "encoder": {"type": "lstm", "input_size": 6, "hidden_size": 5, "bidirectional": True},
        "syntactic_head": {"label_dim": 4, **(head or {})},
        **keys,
    }


def write_conllu_file(path: Path, sentences: Sequence[Sequence[Sequence[Any]]]) -> Path:
    """Sentences of `(form, head, deprel, deps)`; `_` for what is not known."""
    blocks = []
    for number, words in enumerate(sentences, 1):
        lines = [f"# sent_id = s{number}"]
        for index, (form, head, deprel, deps) in enumerate(words, 1):
            lines.append("\t".join([str(index), form, form, "X", "X", "_", str(head), deprel, deps, "_"]))
        blocks.append("\n".join(lines) + "\n\n")
    path.write_text("".join(blocks), encoding="utf-8")
    return path
