"""The generated data: the same everywhere, distributed as described, and labelled by the training set's thresholds."""

import hashlib

import numpy as np
import pytest
import torch
from allennlp.common import Params
from allennlp.common.checks import ConfigurationError
from allennlp.data import Batch, DataLoader, DatasetReader, Instance, Vocabulary
from allennlp.data.fields import LabelField

from spigot_allennlp.data import FullBatchDataLoader, LatentClustersDatasetReader

# Of seed 7.
DIGESTS = ["2157420d642e32e3", "bae4cd6ccc76903a", "747cc69453d1fd7c"]


def digest(reader: LatentClustersDatasetReader, split: str) -> str:
    data = reader.generate(split)
    content = (data.features.astype("<f4"), data.clusters.astype("<i8"), data.labels.astype("<i8"))
    return hashlib.sha256(b"".join(array.tobytes() for array in content)).hexdigest()[:16]


def test_same_data_on_every_machine():
    reader = LatentClustersDatasetReader(num_clusters=3, seed=7)
    assert [digest(reader, split) for split in ("train", "validation", "test")] == DIGESTS
    assert digest(reader, "train") == DIGESTS[0], "reading changes nothing"
    assert digest(LatentClustersDatasetReader(num_clusters=3, seed=8), "train") != DIGESTS[0]


def test_sizes_of_other_splits_do_not_matter():
    small = LatentClustersDatasetReader(num_clusters=4, train_size=50, validation_size=10, test_size=20, seed=1)
    large = LatentClustersDatasetReader(num_clusters=4, train_size=50, validation_size=90, test_size=30, seed=1)
    for split in ("train", "test"):
        mine, theirs = small.generate(split), large.generate(split)
        assert np.array_equal(mine.clusters, theirs.clusters[: len(mine.clusters)])
    assert np.array_equal(small.generate("train").features, large.generate("train").features)


def test_distribution():
    data = LatentClustersDatasetReader(num_clusters=5, noise=0.25).generate("train")
    assert data.features.shape == (5000, 100) and data.features.dtype == np.float32
    counts = np.bincount(data.clusters, minlength=5)
    assert counts.sum() == 5000 and abs(counts - 1000).max() < 130
    centers = np.stack([data.features[data.clusters == cluster].mean(0) for cluster in range(5)])
    assert abs(centers.std() - 1.0) < 0.15 and abs(centers.mean()) < 0.15
    assert abs((data.features - centers[data.clusters]).std() - 0.25) < 0.005


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_labels_follow_from_the_training_thresholds(split: str):
    reader = LatentClustersDatasetReader(num_clusters=3, train_size=40, seed=5)
    train, data = reader.generate("train"), reader.generate(split)
    for cluster, weights in enumerate(reader._weights):
        # So few that means of their own would move the labels of the other splits.
        threshold = (train.features[train.clusters == cluster].astype(float) @ weights).mean()
        scores = data.features[data.clusters == cluster].astype(float) @ weights
        assert np.array_equal(data.labels[data.clusters == cluster], scores > threshold)
        if split != "train":
            assert not np.array_equal(data.labels[data.clusters == cluster], scores > scores.mean())


def test_labels_are_balanced_in_every_training_cluster():
    data = LatentClustersDatasetReader(num_clusters=10).generate("train")
    for cluster in range(10):
        assert 0.4 < data.labels[data.clusters == cluster].mean() < 0.6


def test_cluster_without_training_instances():
    data = LatentClustersDatasetReader(num_clusters=20, train_size=1, test_size=2000, seed=2).generate("test")
    unseen = [data.labels[data.clusters == cluster].mean() for cluster in range(20)]
    assert sorted(unseen)[1] > 0.2 and sorted(unseen)[-2] < 0.8


def test_labels_do_not_depend_on_the_order_of_summation():
    reader = LatentClustersDatasetReader(num_clusters=3)
    data = reader.generate("train")
    scores = [
        (reader._weights[data.clusters] * data.features)[:, order].sum(-1)
        for order in (slice(None), slice(None, None, -1))
    ]
    assert np.array_equal(*scores)
    assert np.cumsum(scores[0])[-1] == np.cumsum(scores[0][::-1])[-1]


def test_fields():
    reader = DatasetReader.from_params(
        Params({"type": "latent_clusters", "num_clusters": 3, "test_size": 7, "seed": 3})
    )
    instances, data = list(reader.read("test")), reader.generate("test")
    batch = Batch(instances)
    batch.index_instances(Vocabulary())
    tensors = batch.as_tensor_dict()
    assert torch.equal(tensors["features"], torch.from_numpy(data.features))
    assert tensors["cluster"].tolist() == data.clusters.tolist()
    assert tensors["label"].tolist() == data.labels.tolist()
    assert set(reader.text_to_instance([0.0] * 100).fields) == {"features"}


@pytest.mark.parametrize(
    "keys, message",
    [
        ({"num_clusters": 0}, "num_clusters is 0"),
        ({"num_clusters": 3, "num_features": 0}, "num_features is 0"),
        ({"num_clusters": 3, "validation_size": 0}, "validation_size is 0"),
        ({"num_clusters": 3, "noise": 0.0}, "noise is 0.0"),
        ({"num_clusters": 3, "seed": -1}, "seed is -1"),
        ({"num_clusters": 3, "num_feature": 5}, "'num_feature'.*num_features"),
    ],
)
def test_bad_keys(keys, message):
    with pytest.raises(ConfigurationError, match=message):
        LatentClustersDatasetReader(**keys)


def test_bad_input():
    reader = LatentClustersDatasetReader(num_clusters=3)
    with pytest.raises(ConfigurationError, match="'dev'.*'train', 'validation', 'test'"):
        list(reader.read("dev"))
    with pytest.raises(ConfigurationError, match=r"\(3,\).*\(100,\)"):
        reader.text_to_instance([1.0, 2.0, 3.0])


class Nothing(DatasetReader):
    def _read(self, file_path):
        return iter(())


class TestFullBatch:
    def loader(self, **keys) -> FullBatchDataLoader:
        params = Params({"type": "full_batch", **keys})
        reader = LatentClustersDatasetReader(num_clusters=3, train_size=30)
        return DataLoader.from_params(params, reader=reader, data_path="train")

    def test_batches(self):
        loader = self.loader(batches_per_epoch=3)
        loader.index_with(Vocabulary())
        loader.set_target_device(torch.device("cpu"))
        instances = list(loader.iter_instances())
        expected = Batch(instances).as_tensor_dict()
        assert len(loader) == 3 and len(instances) == 30
        for _ in range(2):
            batches = list(loader)
            assert len(batches) == 3
            for batch in batches:
                assert batch.keys() == expected.keys()
                assert all(torch.equal(batch[name], tensor) for name, tensor in expected.items())
                del batch["label"]

    def test_a_new_vocabulary_is_taken_note_of(self):
        loader = self.loader()
        loader._instances = [Instance({"label": LabelField("b")}), Instance({"label": LabelField("a")})]
        loader.index_with(Vocabulary(non_padded_namespaces=["labels"], counter={"labels": {"b": 1, "a": 1}}))
        (batch,) = loader
        assert sorted(batch["label"].tolist()) == [0, 1]

    def test_errors(self):
        with pytest.raises(ConfigurationError, match="batches_per_epoch is 0"):
            self.loader(batches_per_epoch=0)
        with pytest.raises(ConfigurationError, match="no instances"):
            FullBatchDataLoader(Nothing(), "train")
