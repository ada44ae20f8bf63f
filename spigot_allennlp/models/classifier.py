from typing import Any, Dict, Optional, Tuple

import torch
from allennlp.common.checks import ConfigurationError
from allennlp.data import Vocabulary
from allennlp.modules import FeedForward
from allennlp.nn import Activation

from spigot_allennlp.checks import one_of
from spigot_allennlp.data.supervision import LABELS, Supervision
from spigot_allennlp.estimators import Downstream
from spigot_allennlp.metrics import Accuracy, TreeScores
from spigot_allennlp.models.latent_structure_model import LatentStructureModel

_TREE = ("latent", "none")


class LatentStructureClassifier(LatentStructureModel):
    """
    What the classifiers share: `logits` that are conditioned on a latent structure, and their cross-entropy as the loss
    of an instance.

    # Parameters

    vocab : `Vocabulary`
        The model's vocabulary.
    """

    def __init__(self, vocab: Vocabulary, **kwargs) -> None:
        super().__init__(vocab, **kwargs)
        self._accuracy = Accuracy()

    def _label_scorer(self, input_dim: int, hidden_dim: int, dropout: float) -> FeedForward:
        """
        A layer of ReLU, followed by dropout, and a linear layer to the labels of the vocabulary.

        # Errors

        `ConfigurationError` for a vocabulary without labels.
        """
        num_labels = self.vocab.get_vocab_size("labels")
        if num_labels == 0:
            raise ConfigurationError("the vocabulary has no labels (its namespace 'labels' is empty)")
        activations = [Activation.by_name("relu")(), Activation.by_name("linear")()]
        return FeedForward(input_dim, 2, [hidden_dim, num_labels], activations, [dropout, 0.0])

    def _with_loss(self, logits: torch.Tensor, label: Optional[torch.Tensor]) -> Dict[str, torch.Tensor]:
        """
        `logits`, `(batch, labels)`, and with labels, `(batch,)`, their cross-entropy as `instance_loss`, `(batch,)`:
        what the part of a model after its latent structure returns at least.

        # Errors

        `ConfigurationError` for a training batch without labels.
        """
        outputs = {"logits": logits}
        if label is not None:
            outputs["instance_loss"] = torch.nn.functional.cross_entropy(logits, label, reduction="none")
        elif self.training:
            raise ConfigurationError("a training batch has no labels")
        return outputs

    def _conditioned(
        self, scores: torch.Tensor, mask: Optional[torch.Tensor], downstream: Downstream
    ) -> Tuple[torch.Tensor, Dict[str, torch.Tensor]]:
        """
        The structure that was conditioned on, and the outputs of `downstream` at it. Their `instance_loss` is the
        estimator's: it has the surrogate gradient.
        """
        estimate = self._estimate(scores, mask, downstream)
        return estimate.value, {**estimate.outputs, "instance_loss": estimate.instance_loss}

    def _classified(self, outputs: Dict[str, torch.Tensor], label: Optional[torch.Tensor]) -> Dict[str, Any]:
        """
        What `forward` returns of all classifiers: `logits` and `probabilities`, `(batch, labels)`; `loss` with labels.
        """
        logits = outputs["logits"]
        output = {"logits": logits, "probabilities": logits.softmax(-1)}
        if label is not None:
            self._accuracy(logits, label)
            output["loss"] = outputs["instance_loss"].mean()
        return output

    def make_output_human_readable(self, output_dict: Dict[str, Any]) -> Dict[str, Any]:
        """
        `label`, the likeliest one, and `probabilities` by label. The batch's loss is left out.
        """
        names = self.vocab.get_index_to_token_vocabulary("labels")
        probabilities = output_dict["probabilities"]
        return {
            "label": [names[index] for index in probabilities.argmax(-1).tolist()],
            "probabilities": [
                {names[index]: round(probability, 4) for index, probability in enumerate(row)}
                for row in probabilities.tolist()
            ],
        }

    def supervision(self) -> Dict[str, Supervision]:
        return {"label": LABELS}

    def get_metrics(self, reset: bool = False) -> Dict[str, float]:
        """
        `accuracy`; with a latent structure, in training also the estimator's diagnostics, kept off the progress bar by
        their `_`.
        """
        metrics = {"accuracy": self._accuracy.get_metric(reset)}
        if self._diagnostics is not None and self.training:
            metrics.update(self._diagnostics.get_metric(reset))
        return metrics


class LatentTreeModel(LatentStructureClassifier):
    """
    A classifier whose structure is a dependency tree, or one tree for each of several sentences.

    # Parameters

    vocab : `Vocabulary`
        Vocabulary of the model.
    tree : `str`, optional (default = `"latent"`)
        `"latent"` or `"none"`.

    # Errors

    `ConfigurationError` for another `tree`.
    """

    def __init__(self, vocab: Vocabulary, tree: str = "latent", **kwargs) -> None:
        super().__init__(vocab, **kwargs)
        self.tree = one_of("tree", tree, _TREE)
        self._tree_scores = TreeScores()

    def _heads(self, trees: torch.Tensor, mask: torch.Tensor) -> Dict[str, torch.Tensor]:
        """
        Outside training `heads`, `(..., 1 + words)`, of trees that were conditioned on, `(..., 1 + words, 1 + words)`.
        """
        heads = self._decoded_heads(trees, mask)
        self._tree_scores(heads.flatten(0, -2))
        return {} if self.training else {"heads": heads}

    def get_metrics(self, reset: bool = False) -> Dict[str, float]:
        """
        As of all classifiers, and of latent trees `tree_depth`.
        """
        metrics = super().get_metrics(reset)
        if self.tree == "latent":
            metrics.update(self._tree_scores.get_metric(reset))
        return metrics
