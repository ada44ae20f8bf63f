"""Word vectors in files, and transformers, as the input of every model that reads text, by config alone."""

import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, List

import pytest
import torch
from allennlp.common import Params
from allennlp.data import Batch, DatasetReader, Vocabulary
from allennlp.models import Model
from allennlp.training.optimizers import Optimizer
from transformers import BertConfig, BertModel, BertTokenizerFast

from spigot_allennlp.external_variables import DEFAULTS
from tests.conftest import FIXTURES, PROJECT_ROOT

FOLDER = PROJECT_ROOT / "training_configs"
TASKS = ["syntactic_then_semantic", "sentiment", "entailment", "semantic_then_sentiment"]
FILES = {
    "syntactic_then_semantic": FIXTURES / "graphs" / "dev.conllu",
    "universal_dependencies": FIXTURES / "graphs" / "dev.conllu",
    "entailment": FIXTURES / "snli" / "dev.jsonl",
    "sentiment": FIXTURES / "sst" / "dev.txt",
    "semantic_then_sentiment": FIXTURES / "sst" / "dev.txt",
}


@pytest.fixture(scope="module")
def transformer(tmp_path_factory) -> Path:
    """A BERT of eight dimensions, whose word pieces are letters."""
    directory = tmp_path_factory.mktemp("transformer")
    letters = "abcdefghijklmnopqrstuvwxyz0123456789.,'!?-"
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", *letters, *(f"##{letter}" for letter in letters)]
    (directory / "vocab.txt").write_text("\n".join(pieces) + "\n")
    BertTokenizerFast(str(directory / "vocab.txt")).save_pretrained(directory)
    torch.manual_seed(1)
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    BertModel(BertConfig(vocab_size=len(pieces), **sizes)).save_pretrained(directory)
    return directory


@pytest.fixture(autouse=True)
def offline_from_the_root_of_the_project(monkeypatch, transformer):
    monkeypatch.chdir(PROJECT_ROOT)
    for name, value in {**DEFAULTS, "SPIGOT_TRANSFORMER": str(transformer), "HF_HUB_OFFLINE": "1"}.items():
        monkeypatch.setenv(name, value)


class Built:
    """A model by a config, and the first sentences of the fixtures."""

    def __init__(self, task: str, config: str, **overrides: Any) -> None:
        params = Params.from_file(str(FOLDER / task / f"{config}.jsonnet"), json.dumps(overrides))
        reader_params = params.get("validation_dataset_reader") or params["dataset_reader"]
        self.reader = DatasetReader.from_params(Params({**reader_params.as_dict(), "max_instances": 6}))
        self.instances = list(self.reader.read(str(FILES[task])))
        self.vocab = Vocabulary.from_params(params.get("vocabulary", Params({})), instances=self.instances)
        torch.manual_seed(1)
        self.model = Model.from_params(params["model"], vocab=self.vocab)
        self.optimizer = params["trainer"]["optimizer"]

    def batch(self) -> Dict[str, Any]:
        batch = Batch(self.instances)
        batch.index_instances(self.vocab)
        return batch.as_tensor_dict()


def embedding(model: Model, name: str = "tokens") -> torch.nn.Module:
    embedders = [module for module in model.modules() if hasattr(module, f"token_embedder_{name}")]
    return getattr(embedders[-1], f"token_embedder_{name}")


@pytest.mark.parametrize("task", [*TASKS, "universal_dependencies"])
def test_a_transformer(task: str):
    built = Built(task, "transformer")
    inputs: List[torch.Tensor] = []
    matched = built.model.text_field_embedder if task == "entailment" else built.model.text_encoder.text_field_embedder
    embedder = matched.token_embedder_tokens
    embedder.register_forward_hook(lambda module, args, kwargs, output: inputs.append(output), with_kwargs=True)
    parameters = [(name, parameter) for name, parameter in built.model.named_parameters() if parameter.requires_grad]
    optimizer = Optimizer.from_params(built.optimizer, model_parameters=parameters)
    weight = embedder._matched_embedder.transformer_model.embeddings.word_embeddings.weight
    before = weight.detach().clone()
    built.model.train()(**built.batch())["loss"].backward()
    assert weight.grad.any()
    optimizer.step()
    assert not torch.equal(weight, before)
    name = "premise" if task == "entailment" else "tokens"
    lengths = [len(instance[name]) for instance in built.instances]
    # A vector for each word, not for each of its pieces.
    assert inputs[0].shape == (len(built.instances), max(lengths), 8)
    assert built.model.eval()(**built.batch())["loss"].isfinite()


@pytest.mark.parametrize("form", ["glove", "word2vec", "word2vec.gz"])
@pytest.mark.parametrize("task", TASKS)
def test_files_of_word_vectors(task: str, form: str, tmp_path: Path, monkeypatch):
    """word2vec's format begins with a line of the number of words and the dimension, which is no word."""
    vectors = {"the": [0.25, -1.5, 3.0], "3": [1.0, 1.0, 1.0], "unheard": [9.0, 9.0, 9.0]}
    lines = [" ".join([word, *map(str, vector)]) for word, vector in vectors.items()]
    text = "\n".join(([f"{len(lines)} 3"] if form != "glove" else []) + lines) + "\n"
    path = tmp_path / ("vectors.txt.gz" if form.endswith("gz") else "vectors.txt")
    path.write_bytes(gzip.compress(text.encode()) if form.endswith("gz") else text.encode())
    monkeypatch.setenv("SPIGOT_WORD_VECTORS", str(path))
    monkeypatch.setenv("SPIGOT_WORD_DIM", "3")
    overrides, name = {}, "words" if task == "semantic_then_sentiment" else "tokens"
    if task == "syntactic_then_semantic":
        keys = {"embedding_dim": 3, "pretrained_file": str(path)}
        overrides = {
            "model.text_field_embedder.token_embedders.tokens": {"type": "embedding", **keys},
            "model.encoder.input_size": 3 + 16,
        }
    built = Built(task, "spigot" if task == "syntactic_then_semantic" else "latent", **overrides)
    weight = embedding(built.model, name).weight
    namespace = "words" if task == "semantic_then_sentiment" else "tokens"
    known = built.vocab.get_token_to_index_vocabulary(namespace)
    assert "the" in known and "unheard" not in known
    assert weight.shape == (len(known), 3) and weight[known["the"]].tolist() == vectors["the"]
    built.model.train()(**built.batch())["loss"].backward()


def test_a_transformer_on_the_command_line(tmp_path, transformer):
    """Trained, archived, and predicting from text."""
    corpus = tmp_path / "corpus.tsv"
    corpus.write_text("1\tgood\n0\tbad\n1\tthe good film\n0\tthe bad film\n")
    overrides = {"train_data_path": str(corpus), "validation_data_path": str(corpus), "trainer.num_epochs": 1}
    run, output = tmp_path / "run", tmp_path / "output.jsonl"
    (tmp_path / "input.txt").write_text("The film, so good!\n")
    train = ["train", str(FOLDER / "sentiment" / "transformer.jsonnet"), "-s", str(run), "-o", json.dumps(overrides)]
    predict = ["predict", str(run / "model.tar.gz"), str(tmp_path / "input.txt"), "--output-file", str(output)]
    for command in (train, predict):
        arguments = [sys.executable, "-m", "allennlp", *command, "--include-package", "spigot_allennlp"]
        finished = subprocess.run(arguments, cwd=PROJECT_ROOT, capture_output=True, text=True, timeout=300)
        assert finished.returncode == 0, finished.stderr[-3000:]
    assert json.loads(output.read_text())["words"] == ["The", "film", ",", "so", "good", "!"]
