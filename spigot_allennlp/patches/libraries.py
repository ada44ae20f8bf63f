"""
What newer versions of transformers and of wandb broke in AllenNLP 2.10.1.
"""

import uuid
from typing import Any, Callable

from allennlp.common import cached_transformers
from allennlp.training.callbacks import WandBCallback

from spigot_allennlp.patches.replacement import replace


def apply() -> None:
    """
    Apply every patch of this file. Calling it again does nothing.
    """
    replace(WandBCallback, "on_start", _run_id_without_wandb)
    replace(cached_transformers, "get_tokenizer", _tokenizer_of_current_transformers)


def _run_id_without_wandb(original: Callable) -> Callable:
    """
    AllenNLP has the name of a run made by `wandb.util.generate_id`, which newer versions of wandb lack. AllenNLP must
    know the name: a recovered run goes on under it.
    """

    def on_start(self: WandBCallback, *args: Any, **kwargs: Any) -> None:
        if self._run_id is None:
            self._run_id = uuid.uuid4().hex[:8]
        original(self, *args, **kwargs)

    return on_start


def _tokenizer_of_current_transformers(original: Callable) -> Callable:
    """
    AllenNLP loads its tokenizers with `add_special_tokens`, which current versions of transformers refuse there. It
    says so again wherever it calls them, which is where it counts.
    """

    def get_tokenizer(model_name: str, **kwargs: Any) -> Any:
        kwargs.pop("add_special_tokens", None)
        return original(model_name, **kwargs)

    return get_tokenizer
