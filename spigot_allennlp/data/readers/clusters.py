from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Optional, Union

import numpy as np
import torch
from allennlp.common.checks import ConfigurationError
from allennlp.data import DatasetReader, Field, Instance
from allennlp.data.fields import LabelField, TensorField

from spigot_allennlp.checks import at_least, at_least_one, positive, refuse_unknown_keys
from spigot_allennlp.data.generated import SPLITS, check_split, random_stream

# Everything that is drawn is rounded to multiples of this. Products and sums of such numbers are exact in double
# precision, so that no order of summation (which differs between processors) moves a label.
_GRID = 2.0**-16


@dataclass
class Clusters:
    """
    # Parameters

    features : `np.ndarray`
        `(size, num_features)`, float32.
    clusters, labels : `np.ndarray`
        `(size,)`, the index of the cluster and 0 or 1.
    """

    features: np.ndarray
    clusters: np.ndarray
    labels: np.ndarray


@DatasetReader.register("latent_clusters")
class LatentClustersDatasetReader(DatasetReader):
    """
    Makes the data of Mihaylova et al. (2020, section 5.1), in which every cluster has a linear classifier of its own:

        z ~ uniform over the clusters,  x = center_z + noise * N(0, I),  label = [w_z x > threshold_z]

    with centers and weights from N(0, I). A threshold is the mean of `w_z x` over the cluster's *training* instances,
    in all splits (for a cluster without any, the score of its center). Nothing is read: the "file path" names the
    split, `"train"`, `"validation"` or `"test"`. The seed decides everything, on every machine alike, and except for
    the thresholds no split depends on another. The fields:

    - `features`: `TensorField` of shape `(num_features,)`.
    - `cluster`: `LabelField` of the index of the gold cluster.
    - `label`: `LabelField`, 0 or 1.

    # Parameters

    num_clusters : `int`
        Number of clusters.
    num_features : `int`, optional (default = `100`)
        Number of features of an instance.
    train_size, validation_size, test_size : `int`, optional (default = `5000`, `1000`, `1000`)
        Numbers of instances of the splits.
    noise : `float`, optional (default = `0.1`)
        Standard deviation within a cluster.
    seed : `int`, optional (default = `0`)
        Random seed of the data.

    # Errors

    `ConfigurationError` for values out of range and another split.
    """

    def __init__(
        self,
        num_clusters: int,
        num_features: int = 100,
        train_size: int = 5000,
        validation_size: int = 1000,
        test_size: int = 1000,
        noise: float = 0.1,
        seed: int = 0,
        **kwargs,
    ) -> None:
        refuse_unknown_keys(self, kwargs)
        super().__init__(manual_distributed_sharding=True, manual_multiprocess_sharding=True, **kwargs)
        self._sizes = dict(zip(SPLITS, (train_size, validation_size, test_size)))
        sizes = {f"{split}_size": size for split, size in self._sizes.items()}
        for name, value in {"num_clusters": num_clusters, "num_features": num_features, **sizes}.items():
            at_least_one(name, value)
        self._noise = positive("noise", noise)
        self._seed = at_least(0, "seed", seed)
        generator = random_stream(self._seed, 0)
        self._centers = _normal(generator, num_clusters, num_features)
        self._weights = _normal(generator, num_clusters, num_features)

    def _read(self, file_path: str) -> Iterator[Instance]:
        data = self.generate(str(file_path))
        features = torch.from_numpy(data.features)
        for index in self.shard_iterable(range(len(features))):
            yield self.text_to_instance(features[index], int(data.clusters[index]), int(data.labels[index]))

    def generate(self, split: str) -> Clusters:
        """
        # Returns

        `Clusters`
            The data of `"train"`, `"validation"` or `"test"`.

        # Errors

        `ConfigurationError` for another split.
        """
        check_split("latent_clusters", split)
        clusters, features = self._draw("train")
        scores = self._scores(clusters, features)
        thresholds = self._scores(np.arange(len(self._centers)), self._centers)
        for cluster in np.unique(clusters):
            thresholds[cluster] = scores[clusters == cluster].mean()
        if split != "train":
            clusters, features = self._draw(split)
            scores = self._scores(clusters, features)
        return Clusters(features.astype(np.float32), clusters, (scores > thresholds[clusters]).astype(np.int64))

    def text_to_instance(
        self,
        features: Union[torch.Tensor, Sequence[float]],
        cluster: Optional[int] = None,
        label: Optional[int] = None,
    ) -> Instance:
        """
        # Parameters

        features : `Union[torch.Tensor, Sequence[float]]`
            `(num_features,)`.
        cluster, label : `int`, optional (default = `None`)
            Indices of the gold cluster and of the class.
        """
        features = torch.as_tensor(features, dtype=torch.float)
        if features.shape != self._centers.shape[1:]:
            raise ConfigurationError(
                f"features have shape {tuple(features.shape)}; valid: {self._centers.shape[1:]}, from num_features"
            )
        fields: dict[str, Field] = {"features": TensorField(features)}
        if cluster is not None:
            fields["cluster"] = LabelField(cluster, label_namespace="cluster_labels", skip_indexing=True)
        if label is not None:
            fields["label"] = LabelField(label, skip_indexing=True)
        return Instance(fields)

    def _draw(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        generator = random_stream(self._seed, 1 + SPLITS.index(split))
        clusters = generator.integers(len(self._centers), size=self._sizes[split])
        noise = _normal(generator, len(clusters), self._centers.shape[1], scale=self._noise)
        return clusters, self._centers[clusters] + noise

    def _scores(self, clusters: np.ndarray, features: np.ndarray) -> np.ndarray:
        return (self._weights[clusters] * features).sum(-1)


def _normal(generator: np.random.Generator, *shape: int, scale: float = 1.0) -> np.ndarray:
    """Normal draws on the grid, in double precision."""
    return np.rint(scale * generator.standard_normal(shape) / _GRID) * _GRID
