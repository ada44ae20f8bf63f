from typing import Any, Dict, List, Optional

import torch
from allennlp.common import Lazy
from allennlp.data import TextFieldTensors, Vocabulary
from allennlp.models import Model
from allennlp.modules import Seq2SeqEncoder, TextFieldEmbedder
from allennlp.nn import InitializerApplicator

from spigot_allennlp.checks import refuse_unknown_keys
from spigot_allennlp.estimators import Estimator
from spigot_allennlp.models.classifier import LatentTreeModel
from spigot_allennlp.models.readable import readable_trees
from spigot_allennlp.modules import ArcScorer, AttentionPooling, MlpArcScorer, TextEncoder
from spigot_allennlp.structures import LatentStructure, ProjectiveTree
from spigot_allennlp.structures.latent_structure import check_arcs


@Model.register("latent_tree_classifier")
class LatentTreeClassifier(LatentTreeModel):
    """
    Classifies a sentence through a latent dependency tree (Mihaylova et al. 2020, section 5.2), for which no gold
    annotation exists: the classifier's loss is all that a tree is learned from, and what of it reaches the arcs'
    scores, the estimator decides. With the estimator `pipeline` nothing does, so the trees come from a random
    scorer.

    Every token is represented by its own state and its head's, `x_i = [h_i; sum_j z[i, j] h_j]`, linear in `z`. The
    tokens' weighted mean (`AttentionPooling`) goes through a layer of ReLU. The loss is the mean cross-entropy.

    # Parameters

    vocab : `Vocabulary`
        Vocabulary of the model.
    text_field_embedder : `TextFieldEmbedder`
        Embedder of the words.
    encoder : `Seq2SeqEncoder`, optional (default = `None`)
        Encoder of the embeddings; `None` uses the embeddings themselves.
    tree : `str`, optional (default = `"latent"`)
        `"latent"`, or `"none"`: `x_i = h_i`, the rest unchanged. The keys of the tree are then ignored.
    arc_scorer : `Lazy[ArcScorer]`, optional (default = `mlp`)
        Scorer of the tree's arcs.
    structure : `LatentStructure`, optional (default = `projective_tree` with `single_root` false)
        Structure of the tree.
    estimator : `Estimator`, optional (default = `spigot`)
        Estimator of the gradient for the scores.
    hidden_dim : `int`, optional (default = `100`)
        Size of the layer of ReLU.
    dropout : `float`, optional (default = `0.0`)
        Dropout before and after the encoder, and after the layer of ReLU.
    initializer : `InitializerApplicator`, optional
        Initializer of the parameters.

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
        super().__init__(vocab, tree, **kwargs)
        self.text_encoder = TextEncoder(text_field_embedder, encoder, dropout)
        dim = self.text_encoder.get_output_dim()
        if tree == "latent":
            self.arc_scorer = arc_scorer.construct(input_dim=dim)
            structure = check_arcs(structure or ProjectiveTree(single_root=False))
            self._set_latent(structure, estimator, self.arc_scorer)
            dim = 2 * dim
        else:
            # ROOT is not a token of the sentence, and no word's head.
            self.text_encoder.root.requires_grad_(False)
        self.pooling = AttentionPooling(dim)
        self.classifier = self._label_scorer(dim, hidden_dim, dropout)
        initializer(self)

    def forward(
        self, tokens: TextFieldTensors, metadata: List[Dict[str, Any]], label: torch.Tensor = None
    ) -> Dict[str, Any]:
        """
        # Parameters

        tokens : `TextFieldTensors`
            Words of the batch.
        metadata : `List[Dict[str, Any]]`
            Metadata of each instance, as the reader made them.
        label : `torch.Tensor`, optional
            `(batch,)`.

        # Returns

        `Dict[str, Any]`
            `logits` and `probabilities`, `(batch, labels)`; `attention` over the words, `(batch, words)`; with a tree,
            `tree` (what was conditioned on), `(batch, 1 + words, 1 + words)`, and outside training its `heads`,
            `(batch, 1 + words)`; `loss` with labels. Made human readable: `words`, `label`, `probabilities` by label,
            and with a tree `heads`, where words count from 1 and 0 is ROOT; where a word of an
            `arc_graph` has several, the first, and -1 for none.
        """
        states, mask = self.text_encoder(tokens)

        def downstream(tree: Optional[torch.Tensor]) -> Dict[str, torch.Tensor]:
            return self._downstream(states, mask, tree, label)

        trees: Dict[str, torch.Tensor] = {}
        if self.tree == "latent":
            tree, outputs = self._conditioned(self.arc_scorer(states), mask, downstream)
            trees = {"tree": tree, **self._heads(tree, mask)}
        else:
            outputs = downstream(None)
        return {**self._classified(outputs, label), "attention": outputs["attention"], "metadata": metadata, **trees}

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
        # ROOT may be a head, but is not a token of the sentence.
        pooled, attention = self.pooling(vectors[:, 1:], mask[:, 1:])
        return {**self._with_loss(self.classifier(pooled), label), "attention": attention}

    def make_output_human_readable(self, output_dict: Dict[str, Any]) -> Dict[str, Any]:
        words = [entry["words"] for entry in output_dict["metadata"]]
        readable = {"words": words, **super().make_output_human_readable(output_dict)}
        if "heads" in output_dict:
            readable.update(readable_trees(output_dict["heads"], None, words))
        return readable
