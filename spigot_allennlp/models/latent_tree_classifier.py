from typing import Any, Dict, List, Optional

import torch
from allennlp.common import Lazy
from allennlp.common.checks import ConfigurationError
from allennlp.data import TextFieldTensors, Vocabulary
from allennlp.models import Model
from allennlp.modules import FeedForward, Seq2SeqEncoder, TextFieldEmbedder
from allennlp.nn import Activation, InitializerApplicator

from spigot_allennlp.estimators import Estimator, Pipeline
from spigot_allennlp.functional.trees import heads_from_arcs
from spigot_allennlp.metrics import Accuracy, EstimatorDiagnostics, TreeScores
from spigot_allennlp.models.classes import readable_classes
from spigot_allennlp.models.syntactic_parser import readable_trees
from spigot_allennlp.modules import ArcScorer, AttentionPooling, MlpArcScorer, TextEncoder
from spigot_allennlp.structures import LatentStructure, ProjectiveTree
from spigot_allennlp.structures.latent_structure import check_arcs
from spigot_allennlp.unknown_keys import refuse_unknown_keys

_TREE = ("latent", "none")


@Model.register("latent_tree_classifier")
class LatentTreeClassifier(Model):
    """
    Classifies a sentence by way of a latent dependency tree (Mihaylova et al. 2020, section 5.2), of which no gold
    annotation exists: the classifier's loss is all that a tree is learned from, and what of it reaches the arcs'
    scores, the estimator decides. With the estimator `pipeline` nothing does, so that the trees stay those of a random
    scorer.

    Every token is represented by its own state and its head's, `x_i = [h_i; sum_j z[i, j] h_j]`, linear in `z`. The
    tokens' weighted mean (`AttentionPooling`) goes through a layer of ReLU. The loss is the mean cross-entropy.

    # Parameters

    vocab : `Vocabulary`
    text_field_embedder : `TextFieldEmbedder`
    encoder : `Seq2SeqEncoder`, optional (default = `None`)
        `None` uses the embeddings themselves.
    tree : `str`, optional (default = `"latent"`)
        `"latent"`, or `"none"`: `x_i = h_i`, the rest unchanged. The keys of the tree are then of no account.
    arc_scorer : `Lazy[ArcScorer]`, optional (default = `mlp`)
    structure : `LatentStructure`, optional (default = `projective_tree` with `single_root` false)
    estimator : `Estimator`, optional (default = `spigot`)
    hidden_dim : `int`, optional (default = `100`)
        Of the layer of ReLU.
    dropout : `float`, optional (default = `0.0`)
        Before and behind the encoder, and behind the layer of ReLU.
    initializer : `InitializerApplicator`, optional

    # Errors

    `ConfigurationError` for another `tree`, a structure that is not over arcs or that the estimator cannot work
    with, a vocabulary without labels, and a training batch without them.
    """

    default_predictor = "sentence_classifier"

    def __init__(
        self,
        vocab: Vocabulary,
        text_field_embedder: TextFieldEmbedder,
        encoder: Optional[Seq2SeqEncoder] = None,
        tree: str = "latent",
        arc_scorer: Lazy[ArcScorer] = Lazy(MlpArcScorer),
        structure: LatentStructure = None,
        estimator: Estimator = None,
        hidden_dim: int = 100,
        dropout: float = 0.0,
        initializer: InitializerApplicator = InitializerApplicator(),
        **kwargs,
    ) -> None:
        refuse_unknown_keys(self, kwargs)
        super().__init__(vocab, **kwargs)
        if tree not in _TREE:
            raise ConfigurationError(f"tree is '{tree}'; valid: {', '.join(map(repr, _TREE))}")
        self.tree = tree
        self.text_encoder = TextEncoder(text_field_embedder, encoder, dropout)
        dim = self.text_encoder.get_output_dim()
        if tree == "latent":
            self.arc_scorer = arc_scorer.construct(input_dim=dim)
            self.structure = check_arcs(structure or ProjectiveTree(single_root=False))
            self.estimator = estimator or Estimator.by_name(Estimator.default_implementation)()
            self.estimator.check(self.structure)
            self._tree_scores = TreeScores()
            self._diagnostics = EstimatorDiagnostics(self.estimator.diagnostics)
            if isinstance(self.estimator, Pipeline):
                # Nothing reaches it; distributed training would wait for its gradient.
                self.arc_scorer.requires_grad_(False)
            dim = 2 * dim
        else:
            # ROOT is no token of the sentence, and nobody's head.
            self.text_encoder.root.requires_grad_(False)

        num_labels = vocab.get_vocab_size("labels")
        if num_labels == 0:
            raise ConfigurationError("the vocabulary has no labels (its namespace 'labels' is empty)")
        self.pooling = AttentionPooling(dim)
        activations = [Activation.by_name("relu")(), Activation.by_name("linear")()]
        self.classifier = FeedForward(dim, 2, [hidden_dim, num_labels], activations, [dropout, 0.0])
        self._accuracy = Accuracy()
        initializer(self)

    def forward(
        self, tokens: TextFieldTensors, metadata: List[Dict[str, Any]], label: torch.Tensor = None
    ) -> Dict[str, Any]:
        """
        # Parameters

        tokens : `TextFieldTensors`
        metadata : `List[Dict[str, Any]]`
        label : `torch.Tensor`, optional
            `(batch,)`.

        # Returns

        `Dict[str, Any]`
            `logits` and `probabilities`, `(batch, labels)`; `attention` over the words, `(batch, words)`; with a tree,
            `tree` (what was conditioned on), `(batch, 1 + words, 1 + words)`, and outside training its `heads`,
            `(batch, 1 + words)`; `loss` with labels. Made human readable: `words`, `label`, `probabilities` by label,
            and with a tree `heads`, where words count from 1 and 0 is ROOT.
        """
        if self.training and label is None:
            raise ConfigurationError("a training batch has no labels")
        states, mask = self.text_encoder(tokens)

        def downstream(tree: Optional[torch.Tensor]) -> Dict[str, torch.Tensor]:
            return self._downstream(states, mask, tree, label)

        trees: Dict[str, torch.Tensor] = {}
        if self.tree == "latent":
            estimate = self.estimator(self.arc_scorer(states), mask, self.structure, downstream)
            outputs, instance_loss = estimate.outputs, estimate.instance_loss
            self._diagnostics(estimate.diagnostics)
            trees["tree"] = tree = estimate.structure
            if not self.training:
                # Of a relaxed tree, the one that has most of its mass; any other is its own argmax.
                trees["heads"] = heads_from_arcs(self.structure.argmax(tree, mask))
            self._tree_scores(trees.get("heads", heads_from_arcs(tree.detach())), None, None, None)
        else:
            outputs = downstream(None)
            instance_loss = outputs.get("instance_loss")

        logits = outputs["logits"]
        output: Dict[str, Any] = {
            "logits": logits,
            "probabilities": logits.softmax(-1),
            "attention": outputs["attention"],
            "metadata": metadata,
            **trees,
        }
        if label is not None:
            self._accuracy(logits, label)
            output["loss"] = instance_loss.mean()
        return output

    def _downstream(
        self,
        states: torch.Tensor,
        mask: torch.Tensor,
        tree: Optional[torch.Tensor],
        label: Optional[torch.Tensor],
    ) -> Dict[str, torch.Tensor]:
        """
        `logits` and `attention`, given a tree; with labels `instance_loss`, `(batch,)`.
        """
        vectors = states if tree is None else torch.cat([states, torch.bmm(tree.to(states.dtype), states)], dim=-1)
        # ROOT may be a head, but is no token of the sentence.
        pooled, attention = self.pooling(vectors[:, 1:], mask[:, 1:])
        outputs = {"logits": self.classifier(pooled), "attention": attention}
        if label is not None:
            outputs["instance_loss"] = torch.nn.functional.cross_entropy(outputs["logits"], label, reduction="none")
        return outputs

    def make_output_human_readable(self, output_dict: Dict[str, Any]) -> Dict[str, Any]:
        words = [entry["words"] for entry in output_dict["metadata"]]
        # The loss is that of a batch: it says nothing about a sentence.
        readable: Dict[str, Any] = {
            "words": words,
            **readable_classes(output_dict["probabilities"], self.vocab),
        }
        if "heads" in output_dict:
            readable.update(readable_trees(output_dict["heads"], None, words, self.vocab, ""))
        return readable

    def get_metrics(self, reset: bool = False) -> Dict[str, float]:
        """
        `accuracy`, and of latent trees `tree_depth`; in training also the estimator's diagnostics, kept off the
        progress bar by their `_`.
        """
        metrics = {"accuracy": self._accuracy.get_metric(reset)}
        if self.tree == "latent":
            metrics.update(self._tree_scores.get_metric(reset))
            if self.training:
                metrics.update(self._diagnostics.get_metric(reset))
        return metrics
