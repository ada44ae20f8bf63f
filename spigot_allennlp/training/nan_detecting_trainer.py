from collections import deque
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any, Deque, Dict, List, NamedTuple, Optional

import torch
from allennlp.data import TensorDict
from allennlp.models import Model

from spigot_allennlp.modules import DeterministicRoles, PosPairs
from spigot_allennlp.training.grouped_norms import GroupedNormTrainer


class NanDetectingTrainer(GroupedNormTrainer):
    """
    A trainer that ends when a number is NaN or infinite: with an error that says which tensor was the first that held
    NaN or an infinity, and for which sentences. AllenNLP's ends too, with `nan loss encountered`, if the loss is NaN.

    Only a batch that went wrong is looked into: it is run once more, and the outputs of all modules are checked (-inf
    forbids an arc, and is as it should be). An update that made parameters what they should not be is noticed by the
    norm of the gradient, where the trainer has to know it (`grad_norm`), or else in the next batch.

    # Errors

    `ValueError`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # From the current update, or the one before.
        self._batches: Deque[TensorDict] = deque(maxlen=self._num_gradient_accumulation_steps)

    def batch_outputs(self, batch: TensorDict, for_training: bool) -> Dict[str, torch.Tensor]:
        try:
            outputs = super().batch_outputs(batch, for_training)
        except ValueError as error:
            found = self._find(batch)
            if found is None:
                raise
            raise found from error
        if for_training:
            if not outputs["loss"].isfinite().all():
                raise self._find(batch) or _error("the loss", [batch])
            self._batches.append(batch)
        return outputs

    def rescale_gradients(self) -> Optional[float]:
        norm = super().rescale_gradients()
        # With a scaler, which then skips the update, it is a matter of course.
        if norm is not None and self._scaler is None and not norm < float("inf"):
            gradients = {name: p.grad for name, p in self.model.named_parameters() if p.grad is not None}
            bad = [name for name, gradient in gradients.items() if not _is_finite(gradient)]
            if bad:
                raise _error(f"the gradient of {', '.join(bad[:3])}{', ...' if bad[3:] else ''}", self._batches)
        return norm

    def _find(self, batch: TensorDict) -> Optional[ValueError]:
        """The error for the first tensor that is not as it should be."""
        for name, parameter in self.model.named_parameters():
            if not _is_finite(parameter):
                return _error(f"the parameter {name}, since the last update", self._batches)
        found = _first_in(batch, "the input ") or _first_output(self.model, batch)
        return found and _error(found.name, [batch], found)


class _Found(NamedTuple):
    """A tensor, and which of its `size` rows are not finite."""

    name: str
    rows: List[int]
    size: int


def _first_output(model: Model, batch: TensorDict) -> Optional[_Found]:
    """The innermost module whose output was the first not to be finite."""
    found: List[_Found] = []

    def watch(name: str, module: torch.nn.Module, inputs: Any, output: Any) -> None:
        if not found:
            first = _first_in(output, "")
            if first:
                found.append(first._replace(name=f"the output of {name or 'the model'} ({type(module).__name__})"))

    hooks = [module.register_forward_hook(partial(watch, name)) for name, module in model.named_modules()]
    observers = (DeterministicRoles, PosPairs)
    observing = [module for module in model.modules() if isinstance(module, observers) and module.training]
    # They would wait for the other workers, which do not run this batch again.
    for module in observing:
        module.eval()
    try:
        model(**batch)
    except ValueError:
        # What it ends with is known.
        pass
    finally:
        for hook in hooks:
            hook.remove()
        for module in observing:
            module.train()
    return found[0] if found else None


def _first_in(value: Any, name: str) -> Optional[_Found]:
    for path, tensor in _tensors(value, name):
        if tensor.is_floating_point() and tensor.numel():
            # NaN fails every comparison.
            bad = ~(tensor.detach() < torch.inf)
            if bad.any():
                rows = bad.reshape(len(bad) if bad.dim() else 1, -1).any(-1)
                return _Found(path, rows.nonzero().flatten().tolist(), len(rows))
    return None


def _tensors(value: Any, name: str) -> Iterator[Any]:
    if isinstance(value, torch.Tensor):
        yield name, value
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from _tensors(part, f"{name}{'.' if name and name[-1] != ' ' else ''}{key}")
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _tensors(part, name)


def _is_finite(tensor: torch.Tensor) -> bool:
    values = tensor.coalesce().values() if tensor.is_sparse else tensor
    return bool(values.isfinite().all())


def _error(name: str, batches: Iterable[TensorDict], found: Optional[_Found] = None) -> ValueError:
    sentences = [sentence for batch in batches for sentence in _sentences(batch)]
    # Some outputs have other rows than the batch has.
    if found is not None and found.size == len(sentences):
        sentences = [sentences[row] for row in found.rows]
    return ValueError(
        f"NaN or infinite numbers: first in {name}; sentences: {', '.join(sentences)}. A smaller learning rate, or "
        "grad_norm in the trainer, may help"
    )


def _sentences(batch: TensorDict) -> List[str]:
    """For each instance the sentence's id, or else its words, or its place in the batch."""
    metadata = batch.get("metadata")
    if metadata is None:
        size = next((len(tensor) for _, tensor in _tensors(batch, "") if tensor.dim()), 0)
        return [f"number {row} of the batch" for row in range(size)]
    names = []
    for row, entry in enumerate(metadata):
        words = [" ".join(value) for key, value in entry.items() if key.endswith("words")]
        names.append(str(entry.get("sentence_id") or (repr(" / ".join(words)) if words else f"number {row}")))
    return names
