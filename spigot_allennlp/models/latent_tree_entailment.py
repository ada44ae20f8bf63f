from typing import Any, Dict, List, Optional, Tuple

import torch
from allennlp.common import Lazy
from allennlp.data import TextFieldTensors, Vocabulary
from allennlp.models import Model
from allennlp.modules import FeedForward, TextFieldEmbedder
from allennlp.nn import Activation, InitializerApplicator
from allennlp.nn.util import get_text_field_mask, masked_softmax

from spigot_allennlp.checks import refuse_unknown_keys
from spigot_allennlp.estimators import Estimator
from spigot_allennlp.models.classifier import LatentTreeModel
from spigot_allennlp.models.readable import readable_trees
from spigot_allennlp.modules import ArcScorer, MlpArcScorer, RootSentinel
from spigot_allennlp.modules.root import mask_with_root
from spigot_allennlp.structures import LatentStructure, NonprojectiveTree, Product
from spigot_allennlp.structures.latent_structure import check_arcs


@Model.register("latent_tree_entailment")
class LatentTreeEntailment(LatentTreeModel):
    """
    Decomposable attention (Parikh et al. 2016) over a premise and a hypothesis, each with a latent dependency tree
    (Mihaylova et al. 2020, section 5.3). No gold trees exist: the pair's loss is all that they are learned from, and
    what of it reaches the arcs' scores, the estimator decides. To it the two trees are one structure (`product`).

    With embeddings `x` and their encodings `h = encode(x)`, of the premise's word `i` and the hypothesis' word `j`:

        e[i, j] = <[h_i; sum_k z[i, k] h_k], [h_j; sum_k z[j, k] h_k]>
        v_i     = compare([x_i; sum_j softmax_j(e[i, .]) x_j]),  v_j alike
        logits  = aggregate([sum_i v_i; sum_j v_j])

    `encode`, `compare` and `aggregate` are perceptrons. Attention and sums are over words: neither ROOT nor padding has
    a share in them. The loss is the mean cross-entropy.

    # Parameters

    vocab : `Vocabulary`
        Vocabulary of the model.
    text_field_embedder : `TextFieldEmbedder`
        Embedder of the words.
    tree : `str`, optional (default = `"latent"`)
        `"latent"`, or `"none"`: `e[i, j] = <h_i, h_j>`, the rest unchanged. The keys of the tree are then ignored.

    arc_scorer : `Lazy[ArcScorer]`, optional (default = `mlp`)
        Scorer of the arcs between encodings.
    structure : `LatentStructure`, optional (default = `nonprojective_tree` with `single_root` false)
        Structure of one sentence's tree.
    estimator : `Estimator`, optional (default = `spigot`)
        Estimator of the gradient for the scores.
    hidden_dim : `int`, optional (default = `200`)
        Size of all layers.
    dropout : `float`, optional (default = `0.2`)
        Dropout rate after every layer except the last.
    initializer : `InitializerApplicator`, optional
        Initializer of the parameters.

    # Errors

    `ConfigurationError` for another `tree`, a structure that is not over arcs or that the estimator cannot work with, a
    vocabulary without labels, and a training batch without them.
    """

    default_predictor = "sentence_pair"

    def __init__(
        self,
        vocab: Vocabulary,
        text_field_embedder: TextFieldEmbedder,
        tree: str = "latent",
        arc_scorer: Lazy[ArcScorer] = Lazy(MlpArcScorer),
        structure: LatentStructure = None,
        estimator: Estimator = None,
        hidden_dim: int = 200,
        dropout: float = 0.2,
        initializer: InitializerApplicator = InitializerApplicator(),
        **kwargs,
    ) -> None:
        refuse_unknown_keys(self, kwargs)
        super().__init__(vocab, tree, **kwargs)
        self.text_field_embedder = text_field_embedder
        dim = text_field_embedder.get_output_dim()
        relu = Activation.by_name("relu")()
        self.encode = FeedForward(dim, 2, hidden_dim, relu, dropout)
        self.compare = FeedForward(2 * dim, 2, hidden_dim, relu, dropout)
        self.aggregate = self._label_scorer(2 * hidden_dim, hidden_dim, dropout)
        if tree == "latent":
            self.root = RootSentinel(hidden_dim)
            self.arc_scorer = arc_scorer.construct(input_dim=hidden_dim)
            structure = Product(check_arcs(structure or NonprojectiveTree(single_root=False)))
            self._set_latent(structure, estimator, self.arc_scorer)
        initializer(self)

    def forward(
        self,
        premise: TextFieldTensors,
        hypothesis: TextFieldTensors,
        metadata: List[Dict[str, Any]],
        label: torch.Tensor = None,
    ) -> Dict[str, Any]:
        """
        # Parameters

        premise, hypothesis : `TextFieldTensors`
            Words of both sentences.
        metadata : `List[Dict[str, Any]]`
            Metadata of each instance, as the reader made them.
        label : `torch.Tensor`, optional
            `(batch,)`.

        # Returns

        `Dict[str, Any]`
            `logits` and `probabilities`, `(batch, labels)`; `attention`, `(batch, 2, words, words)`: of each word of
            the premise to the words of the hypothesis, then the other way round, 0 at padding; with trees, `trees`
            (what was conditioned on; premise first), `(batch, 2, 1 + words, 1 + words)`, and outside training their
            `heads`, `(batch, 2, 1 + words)`; `loss` with labels. Made human readable: `premise_words`,
            `hypothesis_words`, `label`, `probabilities` by label, and with trees `premise_heads` and
            `hypothesis_heads`, where words count from 1 and 0 is ROOT.
        """
        embedded, mask = self._embed(premise, hypothesis)
        encoded = self.encode(embedded)
        states: Optional[torch.Tensor] = None

        def downstream(trees: Optional[torch.Tensor]) -> Dict[str, torch.Tensor]:
            return self._downstream(embedded, encoded, states, mask, trees, label)

        latent: Dict[str, torch.Tensor] = {}
        if self.tree == "latent":
            # shape: (batch * 2, 1 + words, hidden_dim), (batch, 2, 1 + words)
            states = self.root(encoded.flatten(0, 1))
            with_root = mask_with_root(mask.flatten(0, 1)).unflatten(0, mask.shape[:2])
            scores = self.arc_scorer(states).unflatten(0, mask.shape[:2])
            states = states.unflatten(0, mask.shape[:2])
            trees, outputs = self._conditioned(scores, with_root, downstream)
            latent = {"trees": trees, **self._heads(trees, with_root)}
        else:
            outputs = downstream(None)
        return {**self._classified(outputs, label), "attention": outputs["attention"], "metadata": metadata, **latent}

    def _embed(self, premise: TextFieldTensors, hypothesis: TextFieldTensors) -> Tuple[torch.Tensor, torch.Tensor]:
        """
        Both sentences, padded to one length: embeddings `(batch, 2, words, dim)` and mask `(batch, 2, words)`.
        """
        masks = [get_text_field_mask(tokens) for tokens in (premise, hypothesis)]
        embedded = [self.text_field_embedder(tokens) for tokens in (premise, hypothesis)]
        length = max(mask.size(1) for mask in masks)
        pad = torch.nn.functional.pad
        return (
            torch.stack([pad(each, (0, 0, 0, length - each.size(1))) for each in embedded], dim=1),
            torch.stack([pad(each, (0, length - each.size(1))) for each in masks], dim=1),
        )

    def _downstream(
        self,
        embedded: torch.Tensor,
        encoded: torch.Tensor,
        states: Optional[torch.Tensor],
        mask: torch.Tensor,
        trees: Optional[torch.Tensor],
        label: Optional[torch.Tensor],
    ) -> Dict[str, torch.Tensor]:
        """
        `logits` and attention, given trees; with labels `instance_loss`, `(batch,)`.
        """
        if trees is not None:
            # shape: (batch, 2, words, hidden_dim)
            heads = torch.matmul(trees[:, :, 1:].to(states.dtype), states)
            encoded = torch.cat([encoded, heads], dim=-1)
        # shape: (batch, premise words, hypothesis words)
        scores = torch.bmm(encoded[:, 0], encoded[:, 1].transpose(1, 2))
        # memory_efficient: the variant that sets padding to the lowest number, and so is exact whatever the scores.
        both = torch.stack([scores, scores.transpose(1, 2)], dim=1)
        attention = masked_softmax(both, mask.flip(1).unsqueeze(2), memory_efficient=True)
        attention = attention.masked_fill(~mask.unsqueeze(-1), 0.0)
        # What each word sees of the other sentence.
        # shape: (batch, 2, words, dim)
        seen = torch.matmul(attention, embedded.flip(1))
        compared = self.compare(torch.cat([embedded, seen], dim=-1))
        sums = compared.masked_fill(~mask.unsqueeze(-1), 0.0).sum(2)
        return {**self._with_loss(self.aggregate(sums.flatten(1)), label), "attention": attention}

    def make_output_human_readable(self, output_dict: Dict[str, Any]) -> Dict[str, Any]:
        readable: Dict[str, Any] = {
            name: [entry[name] for entry in output_dict["metadata"]] for name in ("premise_words", "hypothesis_words")
        }
        readable.update(super().make_output_human_readable(output_dict))
        if "heads" in output_dict:
            for number, sentence in enumerate(("premise", "hypothesis")):
                words = readable[f"{sentence}_words"]
                trees = readable_trees(output_dict["heads"][:, number], None, words)
                readable[f"{sentence}_heads"] = trees["heads"]
        return readable
