from typing import Any, Dict, List

import torch
from allennlp.data import TextFieldTensors, Vocabulary
from allennlp.models import Model
from allennlp.modules import Seq2SeqEncoder, TextFieldEmbedder
from allennlp.nn.util import get_text_field_mask
from allennlp.training.metrics import CategoricalAccuracy

from spigot_allennlp.estimators import Estimator
from spigot_allennlp.structures import LatentStructure


@Model.register("rationale_classifier")
class RationaleClassifier(Model):
    """
    Classifies a text by a part of it, its rationale (Lei et al. 2016): a linear layer scores the words, the structure
    selects some, and the mean embedding of the selected ones is all that the classifier sees.

    # Parameters

    vocab : `Vocabulary`
    text_field_embedder : `TextFieldEmbedder`
    encoder : `Seq2SeqEncoder`
        For the scores; the classifier sees the embeddings of single words.
    structure : `LatentStructure`
        Over parts `(batch, words)`.
    estimator : `Estimator`
    """

    default_predictor = "rationale"

    def __init__(
        self,
        vocab: Vocabulary,
        text_field_embedder: TextFieldEmbedder,
        encoder: Seq2SeqEncoder,
        structure: LatentStructure,
        estimator: Estimator,
        **kwargs,
    ) -> None:
        super().__init__(vocab, **kwargs)
        estimator.check(structure)
        self.text_field_embedder = text_field_embedder
        self.encoder = encoder
        self.structure = structure
        self.estimator = estimator
        self.scorer = torch.nn.Linear(encoder.get_output_dim(), 1)
        self.classifier = torch.nn.Linear(text_field_embedder.get_output_dim(), vocab.get_vocab_size("labels"))
        self._accuracy = CategoricalAccuracy()

    def forward(
        self, tokens: TextFieldTensors, metadata: List[Dict[str, Any]], label: torch.Tensor = None
    ) -> Dict[str, Any]:
        mask = get_text_field_mask(tokens)
        # shape: (batch, words, embedding_dim)
        embedded = self.text_field_embedder(tokens)
        # shape: (batch, words)
        scores = self.scorer(self.encoder(embedded, mask)).squeeze(-1)

        def downstream(selected: torch.Tensor) -> Dict[str, torch.Tensor]:
            total = torch.einsum("bw,bwe->be", selected, embedded)
            outputs = {"logits": self.classifier(total / selected.sum(-1, keepdim=True).clamp(min=1.0))}
            if label is not None:
                # One for each instance: the estimator needs it, not its mean.
                outputs["instance_loss"] = torch.nn.functional.cross_entropy(outputs["logits"], label, reduction="none")
            return outputs

        estimate = self.estimator(scores, mask, self.structure, downstream)
        logits = estimate.outputs["logits"]
        output = {"logits": logits, "selected": estimate.value, "words": [one["words"] for one in metadata]}
        if label is not None:
            self._accuracy(logits, label)
            output["loss"] = estimate.instance_loss.mean()
        return output

    def make_output_human_readable(self, output_dict: Dict[str, Any]) -> Dict[str, Any]:
        labels = output_dict["logits"].argmax(-1).tolist()
        selected = output_dict["selected"].tolist()
        return {
            "label": [self.vocab.get_token_from_index(label, "labels") for label in labels],
            "rationale": [
                " ".join(word for word, inside in zip(words, row) if inside > 0.5)
                for words, row in zip(output_dict["words"], selected)
            ],
        }

    def get_metrics(self, reset: bool = False) -> Dict[str, float]:
        return {"accuracy": self._accuracy.get_metric(reset)}
