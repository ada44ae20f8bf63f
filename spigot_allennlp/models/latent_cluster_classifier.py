from typing import Any, Dict, Optional

import torch
from allennlp.common.checks import ConfigurationError
from allennlp.data import Vocabulary
from allennlp.models import Model
from allennlp.nn import InitializerApplicator

from spigot_allennlp.checks import at_least_one, one_of, refuse_unknown_keys
from spigot_allennlp.estimators import Estimator
from spigot_allennlp.metrics import VMeasure
from spigot_allennlp.models.classifier import LatentStructureClassifier
from spigot_allennlp.models.old_archives import LoadsOldArchives
from spigot_allennlp.structures import Categorical, LatentStructure
from spigot_allennlp.structures.latent_structure import check_dimensions

_CLUSTER = ("latent", "gold", "none")


@Model.register("latent_cluster_classifier")
class LatentClusterClassifier(LoadsOldArchives, LatentStructureClassifier):
    """
    Classifies a vector through a latent cluster (Mihaylova et al. 2020, section 5.1): a linear layer scores the
    clusters, and each cluster has a linear classifier of its own; the latent value `z` chooses one of them (or mixes
    some), together a bilinear form in `z` and the features. What of the classifier's loss reaches the clusters' scores,
    the estimator decides. The loss is the mean cross-entropy.

    # Parameters

    vocab : `Vocabulary`
        Vocabulary of the model.
    num_clusters : `int`
        Number of clusters.
    num_features : `int`, optional (default = `100`)
        Number of features of an instance.
    num_labels : `int`, optional (default = `2`)
        Number of classes.
    cluster : `str`, optional (default = `"latent"`)
        `"latent"`: a latent cluster. `"gold"`: the gold one, also when evaluating. `"none"`: no cluster, and one
        linear classifier. With the latter two, `structure` and `estimator` are ignored.
    structure : `LatentStructure`, optional (default = `categorical`)
        Structure of the latent cluster.
    estimator : `Estimator`, optional (default = `spigot`)
        Estimator of the gradient for the scores.
    initializer : `InitializerApplicator`, optional
        Initializer of the parameters.

    # Errors

    `ConfigurationError` for values out of range, a structure that is not categorical or that the estimator cannot work
    with, and batches that lack what `cluster` or training needs.
    """

    def __init__(
        self,
        vocab: Vocabulary,
        num_clusters: int,
        num_features: int = 100,
        num_labels: int = 2,
        cluster: str = "latent",
        structure: LatentStructure = None,
        estimator: Estimator = None,
        initializer: InitializerApplicator = InitializerApplicator(),
        **kwargs,
    ) -> None:
        refuse_unknown_keys(self, kwargs)
        super().__init__(vocab, **kwargs)
        self.cluster = one_of("cluster", cluster, _CLUSTER)
        self.num_clusters = at_least_one("num_clusters", num_clusters)
        self.num_features = at_least_one("num_features", num_features)
        at_least_one("num_labels", num_labels)
        if cluster == "none":
            self.decoder = torch.nn.Linear(num_features, num_labels)
        else:
            self.decoder = torch.nn.Bilinear(num_clusters, num_features, num_labels)
        if cluster == "latent":
            self.scorer = torch.nn.Linear(num_features, num_clusters)
            structure = check_dimensions(structure or Categorical(), Categorical.dimensions, "values", "categorical")
            self._set_latent(structure, estimator, self.scorer)
            self._v_measure = VMeasure()
        initializer(self)

    def forward(
        self, features: torch.Tensor, cluster: torch.Tensor = None, label: torch.Tensor = None
    ) -> Dict[str, torch.Tensor]:
        """
        # Parameters

        features : `torch.Tensor`
            `(batch, features)`.
        cluster : `torch.Tensor`, optional
            `(batch,)`: the gold clusters, which a latent cluster is only evaluated against.
        label : `torch.Tensor`, optional
            `(batch,)`.

        # Returns

        `Dict[str, torch.Tensor]`
            `logits` and `probabilities`, `(batch, labels)`; `loss` with labels; with a latent cluster `cluster_scores`
            and `cluster_value` (what was conditioned on), `(batch, clusters)`, and `cluster`, the one of the highest
            score, `(batch,)`. Made human readable: `label`, `probabilities`, and with a latent cluster `cluster`.
        """
        if features.dim() != 2 or features.size(1) != self.num_features:
            raise ConfigurationError(
                f"features have shape {tuple(features.shape)}; valid: (batch, {self.num_features}), from num_features"
            )
        latent: Dict[str, torch.Tensor] = {}
        if self.cluster == "none":
            outputs = self._with_loss(self.decoder(features), label)
        else:
            # The bilinear form of `self.decoder`. Its larger part does not depend on z and is computed once,
            # not in every run that an estimator asks for.
            # shape: (batch, labels, clusters)
            logits = torch.einsum("bf,lkf->blk", features, self.decoder.weight)

            def downstream(value: torch.Tensor) -> Dict[str, torch.Tensor]:
                mixed = torch.einsum("blk,bk->bl", logits, value.to(logits.dtype)) + self.decoder.bias
                return self._with_loss(mixed, label)

            if self.cluster == "gold":
                outputs = downstream(self._gold_value(cluster, features))
            else:
                scores = self.scorer(features)
                value, outputs = self._conditioned(scores, None, downstream)
                predicted = scores.detach().argmax(-1)
                latent = {"cluster_scores": scores, "cluster_value": value, "cluster": predicted}
                if cluster is not None:
                    self._v_measure(predicted, cluster)
        return {**self._classified(outputs, label), **latent}

    def _gold_value(self, cluster: Optional[torch.Tensor], features: torch.Tensor) -> torch.Tensor:
        """`(batch, clusters)`, one-hot."""
        if cluster is None:
            raise ConfigurationError("cluster is 'gold', but a batch has no gold clusters")
        if len(cluster) and not 0 <= int(cluster.min()) <= int(cluster.max()) < self.num_clusters:
            raise ConfigurationError(
                f"a batch has gold clusters from {int(cluster.min())} to {int(cluster.max())}; valid: 0 to "
                f"{self.num_clusters - 1}, from num_clusters"
            )
        return torch.nn.functional.one_hot(cluster, self.num_clusters).to(features.dtype)

    def make_output_human_readable(self, output_dict: Dict[str, Any]) -> Dict[str, Any]:
        # Labels, like clusters, have no names.
        readable: Dict[str, Any] = {
            "label": output_dict["probabilities"].argmax(-1).tolist(),
            "probabilities": [[round(p, 4) for p in row] for row in output_dict["probabilities"].tolist()],
        }
        if "cluster" in output_dict:
            readable["cluster"] = output_dict["cluster"].tolist()
        return readable

    def get_metrics(self, reset: bool = False) -> Dict[str, float]:
        """
        As of all classifiers, and of latent clusters `v_measure`.
        """
        metrics = super().get_metrics(reset)
        if self.cluster == "latent":
            metrics["v_measure"] = self._v_measure.get_metric(reset)
        return metrics
