import copy
import inspect
import math
from functools import partial
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

import torch
from allennlp.common.checks import ConfigurationError
from allennlp.data import TensorDict
from allennlp.models import Model
from allennlp.training import GradientDescentTrainer, TrainerCallback

from spigot_allennlp.checks import at_least_one
from spigot_allennlp.estimators import Downstream, Estimator, EstimatorOutput
from spigot_allennlp.metrics import MaskedMean
from spigot_allennlp.modules import ArcPruner
from spigot_allennlp.structures import LatentStructure

_NAMES = (
    "entropy",
    "gradient_norm",
    "gradient_cosine",
    "cosine_coverage",
    "supervised_gradient_norm",
    "supervised_gradient_cosine",
)


@TrainerCallback.register("latent_diagnostics")
class LatentDiagnostics(TrainerCallback):
    """
    Watches the latent structures of any model while it trains. On an epoch's first batch and every `num_batches` after
    it, each `Estimator` in the model is run once more on what the batch gives it, and reports means over instances:

    - `entropy` of the latent distribution, in nats, where the structure has one;
    - the estimator's own diagnostics, such as `pull_back_distance` and `arcs_changed`;
    - `gradient_norm`: the L2 norm of the surrogate gradient at an instance's scores;
    - `supervised_gradient_norm`: the norm of the gradient of the rest of the loss at the same scores, such as a tree's
      supervised loss, per unit of the instance's loss; `supervised_gradient_cosine`: the cosine between the two. Both
      are means over the instances that have such a gradient;
    - `gradient_cosine`: the cosine between that and the exact gradient of the expected loss,

          d E_{p(z; s)}[L(z)] / ds = sum_z p(z; s) (L(z) - E[L]) (z - E[z]),

      summed over all structures of an instance. Where the exact gradient vanishes there is no direction to compare
      with; a surrogate that vanishes where the exact gradient does not counts 0;
    - `cosine_coverage`: the fraction of instances that `gradient_cosine` is the mean of.

    They are part of the model's training metrics, as `_<the estimator's path in the model>_<name>`, hence in
    `metrics_epoch_*.json` and with whatever logs metrics: `"tensorboard"`, `"wandb"`, the console. Like all metrics of
    AllenNLP they are averaged since the beginning of the epoch, and over workers. An epoch without anything to average
    reports NaN.

    The gradients belong to the loss without dropout: the model is in evaluation mode, its estimators are in training
    mode. Training is not touched: what runs is a copy of the model that shares nothing with it but the
    parameters, no gradient is accumulated, and the random state is put back.

    # Parameters

    num_batches : `int`, optional (default = `100`)
        Number of optimizer steps between two measurements.
    max_structures : `int`, optional (default = `64`)
        Largest number of structures of an instance whose exact gradient is computed: it takes as many runs of the
        downstream model.

    # Errors

    `ConfigurationError` for values below 1 and for a model without estimators.
    """

    def __init__(self, serialization_dir: str, num_batches: int = 100, max_structures: int = 64) -> None:
        super().__init__(serialization_dir)
        self.num_batches = at_least_one("num_batches", num_batches)
        self.max_structures = at_least_one("max_structures", max_structures)
        self._means: Dict[str, MaskedMean] = {}

    def on_start(self, trainer: GradientDescentTrainer, is_primary: bool = True, **kwargs) -> None:
        super().on_start(trainer, is_primary, **kwargs)
        estimators = _estimators(trainer.model)
        if not estimators:
            raise ConfigurationError(
                f"latent_diagnostics watches estimators, but the model {type(trainer.model).__name__} has none"
            )
        # All of them from the beginning: workers exchange means in step, also where one has nothing to report.
        for path, estimator in estimators.items():
            names = {*estimator.diagnostics, *_NAMES}
            self._means.update({_metric_name(path, name): MaskedMean() for name in sorted(names)})

        # `metrics_epoch_*.json`, the progress bar and all writers of logs take what `Model.get_metrics` says, before
        # any callback could add to it.
        model_metrics = trainer.model.get_metrics

        def get_metrics(reset: bool = False) -> Dict[str, float]:
            metrics = model_metrics(reset)
            return {**metrics, **self._get_metrics(reset)} if trainer.model.training else metrics

        trainer.model.get_metrics = get_metrics

    def on_batch(
        self,
        trainer: GradientDescentTrainer,
        batch_inputs: List[TensorDict],
        batch_outputs: List[Dict[str, Any]],
        batch_metrics: Dict[str, Any],
        epoch: int,
        batch_number: int,
        is_training: bool,
        is_primary: bool = True,
        batch_grad_norm: Optional[float] = None,
        **kwargs,
    ) -> None:
        if is_training and (batch_number - 1) % self.num_batches == 0:
            for batch in batch_inputs:
                self._diagnose(trainer.model, batch)

    def on_end(
        self,
        trainer: GradientDescentTrainer,
        metrics: Dict[str, Any] = None,
        epoch: int = None,
        is_primary: bool = True,
        **kwargs,
    ) -> None:
        del trainer.model.get_metrics

    def _get_metrics(self, reset: bool) -> Dict[str, float]:
        means = {name: mean.get_metric(reset) for name, mean in self._means.items()}
        # At the end of an epoch a name that is left out would keep the value of the epoch before.
        return {name: mean for name, mean in means.items() if reset or not math.isnan(mean)}

    def _diagnose(self, model: Model, batch: TensorDict) -> None:
        # Metrics, running averages, counters: whatever a forward pass changes, it changes in a copy.
        shared = {id(parameter): parameter for parameter in model.parameters()}
        model = copy.deepcopy(model, {**shared, id(model.vocab): model.vocab}).eval()
        measured: List[_Measured] = []
        for path, estimator in _estimators(model).items():
            estimator.train()
            estimator.register_forward_hook(partial(self._measure, path, measured), with_kwargs=True)
        for module in model.modules():
            if isinstance(module, ArcPruner):
                # In training it leaves the same arcs to inference and to the loss: both then have the same scores.
                module.train()
        devices = {parameter.device.index for parameter in model.parameters() if parameter.is_cuda}
        # The gradients of an RNN in evaluation mode are not to be had from cuDNN.
        with torch.random.fork_rng(devices), torch.backends.cudnn.flags(enabled=False), torch.enable_grad():
            loss = model(**batch).get("loss")
            for entry in measured:
                self._compare_with_supervision(loss, entry)

    def _measure(
        self,
        path: str,
        measured: List["_Measured"],
        estimator: Estimator,
        args: Tuple,
        kwargs: Dict[str, Any],
        output: EstimatorOutput,
    ) -> Optional[EstimatorOutput]:
        if output.instance_loss is None:
            return None
        arguments = inspect.signature(estimator.forward).bind(*args, **kwargs).arguments
        original = arguments["scores"]
        arguments["scores"] = scores = original.detach().requires_grad_()
        with torch.enable_grad():
            again = estimator.forward(**arguments)
            surrogate = _gradient(again.instance_loss, scores)
        values = dict(again.diagnostics)
        with torch.no_grad():
            structure = arguments["structure"]
            if structure.supports("entropy"):
                values["entropy"] = structure.entropy(scores, arguments["mask"])
            values["gradient_norm"] = surrogate.norm(dim=-1)
            exact = exact_gradient(**arguments, max_structures=self.max_structures)
            cosine = torch.nn.functional.cosine_similarity(exact, surrogate, dim=-1, eps=1e-30)
            values["gradient_cosine"] = cosine.masked_fill(~(exact != 0).any(-1), torch.nan)
            values["cosine_coverage"] = (~values["gradient_cosine"].isnan()).float()
        self._record(path, values)
        # From here on the model's loss knows nothing of the estimator: what reaches the scores is supervision.
        instance_loss = output.instance_loss.detach().requires_grad_()
        measured.append(_Measured(path, original, instance_loss, surrogate))
        outputs = {**output.outputs, "instance_loss": instance_loss}
        return output._replace(value=output.value.detach(), outputs=outputs, instance_loss=instance_loss)

    def _compare_with_supervision(self, loss: Optional[torch.Tensor], measured: "_Measured") -> None:
        if loss is None or not measured.scores.requires_grad:
            return
        inputs = [measured.scores, measured.instance_loss]
        gradient, weights = torch.autograd.grad(
            loss, inputs, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        supervised = gradient.flatten(1).double() / weights.double().unsqueeze(-1)
        absent = (weights == 0) | ~(gradient != 0).flatten(1).any(-1)
        cosine = torch.nn.functional.cosine_similarity(supervised, measured.surrogate, dim=-1, eps=1e-30)
        values = {"supervised_gradient_norm": supervised.norm(dim=-1), "supervised_gradient_cosine": cosine}
        self._record(measured.path, {name: value.masked_fill(absent, torch.nan) for name, value in values.items()})

    def _record(self, path: str, values: Dict[str, torch.Tensor]) -> None:
        for name, value in values.items():
            self._means[_metric_name(path, name)](value, ~value.isnan())


class _Measured(NamedTuple):
    """A call of the estimator at `path`: its scores and instance loss in the model's graph, and its gradient."""

    path: str
    scores: torch.Tensor
    instance_loss: torch.Tensor
    surrogate: torch.Tensor


def _estimators(model: Model) -> Dict[str, Estimator]:
    return {path: module for path, module in model.named_modules() if isinstance(module, Estimator)}


def _metric_name(path: str, name: str) -> str:
    return f"_{path.replace('.', '_')}_{name}"


def _gradient(instance_loss: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """`(batch, parts)`: of each instance's own loss; zeros where the estimator lets nothing through."""
    if not instance_loss.requires_grad:
        return torch.zeros_like(scores, dtype=torch.double).flatten(1)
    (gradient,) = torch.autograd.grad(instance_loss.sum(), scores, allow_unused=True, materialize_grads=True)
    return gradient.flatten(1).double()


@torch.no_grad()
def exact_gradient(
    scores: torch.Tensor,
    mask: Optional[torch.Tensor],
    structure: LatentStructure,
    downstream: Downstream,
    max_structures: int,
) -> torch.Tensor:
    """
    `d E_{p(z; s)}[L(z)] / ds`, as the covariance of `L(z)` and `z` over all structures.

    # Parameters

    scores, mask, structure, downstream
        Arguments of `Estimator.forward`.
    max_structures : `int`
        Largest number of structures of an instance; instances with more are left out.

    # Returns

    `torch.Tensor`
        `(batch, parts)`; zeros for the instances left out, and where nothing but rounding is there.
    """
    gradient = torch.zeros_like(scores, dtype=torch.double).flatten(1)
    if not (structure.supports("log_partition") and structure.supports("top_k")):
        return gradient
    counts = structure.log_count(scores, mask).exp().round()
    (rows,) = (counts <= max_structures).nonzero(as_tuple=True)
    if len(rows) == 0:
        return gradient
    # shape: (rows, structures, ...), (rows, structures)
    structures, totals = structure.top_k(scores[rows], None if mask is None else mask[rows], int(counts[rows].max()))
    # Where one instance has fewer than another, its best again, with probability 0: an empty one is not a structure.
    absent = totals.isneginf().view(*totals.shape, *[1] * (scores.dim() - 1))
    structures = torch.where(absent, structures[:, :1], structures)
    # The downstream model takes whole batches.
    point = structure.argmax(scores, mask)
    losses = []
    for parts in structures.unbind(1):
        point = point.index_copy(0, rows, parts)
        losses.append(downstream(point)["instance_loss"][rows])
    # shape: (rows, structures)
    losses = torch.stack(losses, dim=1)
    rounding = torch.finfo(losses.dtype).eps * losses.abs().amax(-1)
    probabilities, losses, structures = (
        totals.double().softmax(-1),
        losses.double(),
        structures.double().flatten(2),
    )
    advantages = losses - (probabilities * losses).sum(-1, keepdim=True)
    deviations = structures - torch.einsum("rk,rkp->rp", probabilities, structures).unsqueeze(1)
    covariance = torch.einsum("rk,rk,rkp->rp", probabilities, advantages, deviations)
    covariance = torch.where((covariance.norm(dim=-1) > rounding).unsqueeze(-1), covariance, 0.0)
    return gradient.index_copy(0, rows, covariance)
