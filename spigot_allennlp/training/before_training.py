"""
What can be known to be wrong before a model is trained, and would otherwise be seen after an epoch, or never.
"""

from contextlib import suppress
from typing import Dict, List, Optional, Set, Tuple

import torch
from allennlp.common.checks import ConfigurationError
from allennlp.common.util import is_distributed
from allennlp.data import DataLoader
from allennlp.data.data_loaders import MultiTaskDataLoader
from allennlp.models import Model
from allennlp.nn.util import get_device_of, move_to_device
from allennlp.training.metric_tracker import MetricTracker

from spigot_allennlp.data.supervision import Supervision

# What one of several workers looks at to learn the names of metrics.
_BATCHES_OF_A_WORKER = 4


def check_validation_metric(model: Model, tracker: MetricTracker, loader: Optional[DataLoader]) -> None:
    """
    # Parameters

    model : `Model`
        Model that is to be trained.
    tracker : `MetricTracker`
        Tracker of the trainer's `validation_metric`.
    loader : `DataLoader`, optional
        Loader of the validation data.

    # Errors

    `ConfigurationError` for a metric that the model does not have, with those that it has. Some models have some of
    their metrics only after data with certain annotation: then the validation data are looked into.
    """
    wanted = [name for _, name in tracker.tracked_metrics]
    if loader is None or set(wanted) <= {"loss", "reg_loss"}:
        return
    was_training = model.training
    model.eval()
    try:
        found = {"loss", "reg_loss"}
        # Some metrics cannot be computed of nothing.
        with suppress(Exception):
            found |= set(model.get_metrics())
        is_known = True
        if not set(wanted) <= found:
            of_data, is_known = _metrics_of_data(model, loader, set(wanted) - found)
            found |= of_data
    finally:
        model.train(was_training)
    unknown = [name for name in wanted if name not in found]
    if unknown and is_known:
        shown = sorted(name for name in found if not name.startswith("_") and name != "reg_loss")
        raise ConfigurationError(
            f"trainer.validation_metric names {', '.join(map(repr, unknown))}, but {type(model).__name__} has no such "
            f"metric; valid, after '+' where more is better and '-' where less is: {', '.join(shown)}"
        )


@torch.no_grad()
def _metrics_of_data(model: Model, loader: DataLoader, wanted: Set[str]) -> Tuple[Set[str], bool]:
    """The names that data bring, and whether those are all."""
    device = next((get_device_of(parameter) for parameter in model.parameters()), -1)
    found: Set[str] = set()
    for number, batch in enumerate(loader):
        # Workers, which sum up metrics in step, have different numbers of batches.
        if is_distributed() and number == _BATCHES_OF_A_WORKER:
            return set(model.get_metrics(reset=True)), False
        model(**move_to_device(batch, device))
        if not is_distributed():
            found = set(model.get_metrics())
            if wanted <= found:
                break
    return found | set(model.get_metrics(reset=True)), True


def check_supervision(
    model: Model, loader: DataLoader, validation_loader: Optional[DataLoader], tracker: MetricTracker
) -> None:
    """
    # Parameters

    model : `Model`
        Model that is to be trained.
    loader, validation_loader : `DataLoader`
        Loaders of training and of validation data.
    tracker : `MetricTracker`
        Tracker of the trainer's `validation_metric`.

    # Errors

    `ConfigurationError` where no instance of the training data has a layer that the model learns from, or none of the
    validation data one that it is measured by: training would end with scores of 0.
    """
    supervision: Dict[str, Supervision] = getattr(model, "supervision", dict)()
    _check_loader("training", loader, supervision)
    if validation_loader is not None:
        tracked = {name for _, name in tracker.tracked_metrics}
        several_corpora = isinstance(loader, MultiTaskDataLoader)
        needed = {
            field: layer
            for field, layer in supervision.items()
            if layer.essential or not several_corpora or tracked & set(layer.metrics)
        }
        _check_loader("validation", validation_loader, needed)


def _check_loader(which: str, loader: DataLoader, supervision: Dict[str, Supervision]) -> None:
    absent = dict(supervision)
    number = 0
    if absent:
        for instance in loader.iter_instances():
            number += 1
            for field in set(absent) & set(instance.fields):
                del absent[field]
            if not absent:
                break
    for layer in _on_all_workers(absent):
        raise ConfigurationError(
            f"no sentence of the {which} data ({number:,}) has {layer.name} ({layer.where}), which this config learns "
            f"from. Valid: data with {layer.name}, and a reader that does not leave them out; or {layer.instead}"
        )


def _on_all_workers(absent: Dict[str, Supervision]) -> List[Supervision]:
    """Those that no worker has found in its share of the data."""
    fields = set(absent)
    if is_distributed():
        of_all: List[Set[str]] = [set()] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(of_all, fields)
        fields = set.intersection(*of_all)
    return [layer for field, layer in absent.items() if field in fields]
