from typing import Any, Dict, List, Optional

import torch
from allennlp.common import Lazy
from allennlp.common.checks import ConfigurationError
from allennlp.data import TextFieldTensors, Vocabulary
from allennlp.models import Model
from allennlp.modules import Seq2SeqEncoder, TextFieldEmbedder
from allennlp.nn import InitializerApplicator
from allennlp.nn.util import get_text_field_mask

from spigot_allennlp.checks import at_least_one, one_of, refuse_unknown_keys
from spigot_allennlp.data.supervision import TREES, Supervision
from spigot_allennlp.estimators import Estimator
from spigot_allennlp.functional.trees import arcs_from_heads
from spigot_allennlp.metrics import DependencyGraphF1
from spigot_allennlp.models.classifier import LatentStructureClassifier
from spigot_allennlp.models.readable import readable_trees
from spigot_allennlp.modules import ArcScorer, MlpArcScorer, TextEncoder, TreeEvaluator
from spigot_allennlp.modules.root import mask_with_root, with_root
from spigot_allennlp.structures import LatentStructure, NonprojectiveTree
from spigot_allennlp.structures.latent_structure import check_arcs

_TREE = ("latent", "gold")


@Model.register("latent_tree_evaluator")
class LatentTreeEvaluator(LatentStructureClassifier):
    """
    Classifies a sequence by evaluating a latent tree over it, such as the parse of an expression (Paulus et al. 2020,
    section 5.2). An encoder scores the tree's arcs. The tokens' embeddings alone are then passed along the tree to its
    root (`TreeEvaluator`): whatever depends on the order of tokens goes through the tree. The loss is the mean
    cross-entropy.

    # Parameters

    vocab : `Vocabulary`
        The model's vocabulary.
    text_field_embedder : `TextFieldEmbedder`
        Embedder of the tokens.
    encoder : `Seq2SeqEncoder`, optional (default = `None`)
        Encoder from which arcs are scored; `None` scores them from the embeddings.
    num_labels : `int`, optional (default = `10`)
        Number of classes.
    tree : `str`, optional (default = `"latent"`)
        `"latent"`: a latent tree. `"gold"`: the gold one, also when evaluating, which leaves the keys of the latent one
        without effect.
    arc_scorer : `Lazy[ArcScorer]`, optional (default = mlp)
        Scorer of the arcs.
    structure : `LatentStructure`, optional (default = `nonprojective_tree`)
        Structure of the tree.
    estimator : `Estimator`, optional (default = `spigot`)
        Estimator of the gradient at the scores.
    hidden_dim : `int`, optional (default = `100`)
        Size of the states that are passed along the tree.
    num_steps : `int`, optional (default = `5`)
        Number of steps; the depth of trees that can be evaluated.
    initializer : `InitializerApplicator`, optional
        Initializer of the weights.

    # Errors

    `ConfigurationError` for values out of range, a structure that is not over arcs or that the estimator cannot work
    with, and batches that lack what `tree` or training needs.
    """

    default_predictor = "sentence_classifier"

    def __init__(
        self,
        vocab: Vocabulary,
        text_field_embedder: TextFieldEmbedder,
        encoder: Optional[Seq2SeqEncoder] = None,
        num_labels: int = 10,
        tree: str = "latent",
        arc_scorer: Lazy[ArcScorer] = Lazy(MlpArcScorer),
        structure: LatentStructure = None,
        estimator: Estimator = None,
        hidden_dim: int = 100,
        num_steps: int = 5,
        initializer: InitializerApplicator = InitializerApplicator(),
        **kwargs,
    ) -> None:
        refuse_unknown_keys(self, kwargs)
        super().__init__(vocab, **kwargs)
        self.tree = one_of("tree", tree, _TREE)
        self.text_field_embedder = text_field_embedder
        if tree == "latent":
            self.text_encoder = TextEncoder(text_field_embedder, encoder)
            self.arc_scorer = arc_scorer.construct(input_dim=self.text_encoder.get_output_dim())
            # The embeddings learn from both sides.
            scorer = torch.nn.ModuleList([self.text_encoder.root, self.arc_scorer, *([encoder] if encoder else [])])
            self._set_latent(check_arcs(structure or NonprojectiveTree()), estimator, scorer)
        self.evaluator = TreeEvaluator(text_field_embedder.get_output_dim(), hidden_dim, num_steps)
        self.classifier = torch.nn.Linear(hidden_dim, at_least_one("num_labels", num_labels))
        self._edge_scores = DependencyGraphF1()
        initializer(self)

    def forward(
        self,
        tokens: TextFieldTensors,
        metadata: List[Dict[str, Any]],
        head_indices: torch.Tensor = None,
        label: torch.Tensor = None,
    ) -> Dict[str, Any]:
        """
        # Parameters

        tokens : `TextFieldTensors`
            The tokens.
        metadata : `List[Dict[str, Any]]`
            `"words"` of each sequence.
        head_indices : `torch.Tensor`, optional
            `(batch, words)`: the gold heads, 0 for ROOT, which a latent tree is only evaluated against.
        label : `torch.Tensor`, optional
            `(batch,)`.

        # Returns

        `Dict[str, Any]`
            `logits` and `probabilities`, `(batch, labels)`; `tree` (what was conditioned on),
            `(batch, 1 + words, 1 + words)`, and outside training its `heads`, `(batch, 1 + words)`; `loss` with labels.
            Made human readable: `words`, `label`, `probabilities` and `heads`, where words count from 1 and 0 is ROOT.
        """
        words = get_text_field_mask(tokens)
        mask = mask_with_root(words)
        vectors = self.text_field_embedder(tokens)
        gold_heads = None if head_indices is None else with_root(head_indices, -1, words)

        def downstream(value: torch.Tensor) -> Dict[str, torch.Tensor]:
            return self._with_loss(self.classifier(self.evaluator(vectors, value)), label)

        if self.tree == "gold":
            if gold_heads is None:
                raise ConfigurationError("tree is 'gold', but a batch has no gold trees")
            tree, heads = arcs_from_heads(gold_heads, vectors.dtype), gold_heads
            outputs = downstream(tree)
        else:
            states, _ = self.text_encoder(tokens)
            tree, outputs = self._conditioned(self.arc_scorer(states), mask, downstream)
            heads = self._decoded_heads(tree, mask)
            if gold_heads is not None:
                predicted, gold = (arcs_from_heads(each, torch.bool) for each in (heads, gold_heads))
                self._edge_scores(predicted, gold, gold)
        output = {**self._classified(outputs, label), "metadata": metadata, "tree": tree}
        return output if self.training else {**output, "heads": heads}

    def make_output_human_readable(self, output_dict: Dict[str, Any]) -> Dict[str, Any]:
        words = [entry["words"] for entry in output_dict["metadata"]]
        probabilities = output_dict["probabilities"]
        # Labels are numbers and have no names.
        return {
            "words": words,
            "label": probabilities.argmax(-1).tolist(),
            "probabilities": [[round(p, 4) for p in row] for row in probabilities.tolist()],
            **readable_trees(output_dict["heads"], None, words),
        }

    def supervision(self) -> Dict[str, Supervision]:
        """Labels, and gold trees where `tree` is `"gold"`."""
        needed = super().supervision()
        if self.tree == "gold":
            needed["head_indices"] = TREES._replace(instead="'tree': 'latent'")
        return needed

    def get_metrics(self, reset: bool = False) -> Dict[str, float]:
        """
        As of all classifiers, and of latent trees `edge_precision`, `edge_recall` and `edge_f1` against gold ones, the
        edge from ROOT included.
        """
        metrics = super().get_metrics(reset)
        if self.tree == "latent":
            scores = self._edge_scores.get_metric(reset)
            metrics.update({f"edge_{name}": scores[f"unlabeled_{name}"] for name in ("precision", "recall", "f1")})
        return metrics
