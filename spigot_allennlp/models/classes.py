from typing import Any, Dict

import torch
from allennlp.data import Vocabulary


def readable_classes(probabilities: torch.Tensor, vocab: Vocabulary) -> Dict[str, Any]:
    """
    What classifiers say of `(batch, labels)` probabilities: `label`, the likeliest one, and `probabilities` by label.
    """
    names = vocab.get_index_to_token_vocabulary("labels")
    return {
        "label": [names[index] for index in probabilities.argmax(-1).tolist()],
        "probabilities": [
            {names[index]: round(probability, 4) for index, probability in enumerate(row)}
            for row in probabilities.tolist()
        ],
    }
