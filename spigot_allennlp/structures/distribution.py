"""
The Gibbs distribution over a structure, as a distribution of torch.
"""

from typing import Any, Optional

import torch
from torch.distributions import Distribution, constraints, register_kl

from spigot_allennlp.checks import positive
from spigot_allennlp.functional.noise import gumbel
from spigot_allennlp.structures.latent_structure import LatentStructure


class _IsStructure(constraints.Constraint):
    """
    Values that are one of the structures.

    `z` is a structure if and only if it is the argmax of `2 z - 1`: that scores 1 for each part of `z` and -1 for each
    other one.
    """

    is_discrete = True

    def __init__(self, distribution: "_Distribution") -> None:
        self._distribution = distribution
        self.event_dim = len(distribution.event_shape)

    def check(self, value: torch.Tensor) -> torch.Tensor:
        given = self._distribution
        number = value.shape[: value.dim() - given.scores.dim()].numel()
        # Further dimensions in front are samples.
        mask = None if given.mask is None else given.mask.expand(number, *given.mask.shape).flatten(0, -2)
        scores = 2.0 * value.to(given.scores.dtype) - 1.0
        best = given.structure.argmax(scores.reshape(-1, *given.event_shape), mask).view_as(value)
        return (best == value).flatten(value.dim() - self.event_dim).all(-1)


class _Distribution(Distribution):
    """
    # Parameters

    structure : `LatentStructure`
        Set of structures that the distribution is over.
    scores : `torch.Tensor`
        `(*batch, *event)`; the event is one instance's parts.
    mask : `torch.Tensor`, optional
        Mask of the structure, `(*batch, ...)`.
    validate_args : `bool`, optional (default = torch's)
        Whether arguments and values are checked.

    # Errors

    `ValueError` for scores without a batch dimension and for what the structure refuses.
    """

    arg_constraints = {"scores": constraints.dependent(is_discrete=False, event_dim=0)}

    def __init__(
        self,
        structure: LatentStructure,
        scores: torch.Tensor,
        mask: Optional[torch.Tensor],
        validate_args: Optional[bool] = None,
    ) -> None:
        event_dim = len(structure.dimensions) - 1
        if scores.dim() <= event_dim:
            raise ValueError(
                f"scores have shape {tuple(scores.shape)}; valid: batch dimensions, then the dimensions of "
                f"({', '.join(structure.dimensions[1:])})"
            )
        self.structure = structure
        self.scores = scores
        self.mask = mask
        batch_shape, event_shape = scores.shape[:-event_dim], scores.shape[-event_dim:]
        super().__init__(batch_shape, event_shape, validate_args)
        if self._validate_args:
            # Refuses what does not fit, -inf that leaves no structure, and NaN.
            structure.argmax(*self._flat())

    def expand(self, batch_shape: Any, _instance: Optional[Distribution] = None) -> Distribution:
        """The same distribution in a larger batch, as torch's own."""
        new = self._get_checked_instance(type(self), _instance)
        batch_shape = torch.Size(batch_shape)
        new.structure = self.structure
        new.scores = self.scores.expand(batch_shape + self.event_shape)
        new.mask = None
        if self.mask is not None:
            new.mask = self.mask.expand(batch_shape + self.mask.shape[len(self.batch_shape) :])
        Distribution.__init__(new, batch_shape, self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def _flat(self):
        """Scores and mask with one batch dimension."""
        dimensions = len(self.batch_shape)
        mask = None if self.mask is None else self.mask.flatten(0, dimensions - 1)
        return self.scores.flatten(0, dimensions - 1), mask

    def _unflat(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.view(*self.batch_shape, *tensor.shape[1:])


class StructureDistribution(_Distribution):
    """
    `p(z; s) = exp(<s, z> - log Z(s))` over the structures `z`, 0/1 parts. See `LatentStructure.distribution`, which
    makes it.

    Event shape: the shape of one instance's parts. `mean` are the marginals; `log_prob`, `entropy` and the divergence
    `torch.distributions.kl_divergence` are exact and differentiable in the scores; samples are exact and carry no
    gradient.

    # Errors

    `ValueError`, with validation, for a value that is not a structure of the instance.
    """

    has_rsample = False

    @property
    def support(self) -> constraints.Constraint:
        return _IsStructure(self)

    @property
    def mean(self) -> torch.Tensor:
        return self._unflat(self.structure.marginals(*self._flat()))

    @property
    def variance(self) -> torch.Tensor:
        """One Bernoulli variable for each part."""
        return self.mean * (1.0 - self.mean)

    @property
    def mode(self) -> torch.Tensor:
        return self._unflat(self.structure.argmax(*self._flat()))

    def sample(self, sample_shape: Any = torch.Size()) -> torch.Tensor:
        """`(*sample_shape, *batch, *event)`, from torch's global random state."""
        shape = self._extended_shape(torch.Size(sample_shape))
        number = torch.Size(sample_shape).numel()
        if number == 0:
            return self.scores.new_zeros(shape)
        return self.structure.sample(*self._flat(), number).view(shape)

    def log_prob(self, value: torch.Tensor) -> torch.Tensor:
        """`(*sample, *batch)`."""
        value = value.expand(torch.broadcast_shapes(value.shape, self.scores.shape))
        if self._validate_args:
            self._validate_sample(value)
        scores, mask = self._flat()
        extra = value.shape[: value.dim() - self.scores.dim()]
        values = value.reshape(extra.numel(), *scores.shape)
        return self.structure.log_prob(values, scores, mask).view(extra + self.batch_shape)

    def _validate_sample(self, value: torch.Tensor) -> None:
        # Torch's own error would repeat the whole value.
        valid = self.support.check(value)
        if not valid.all():
            first = (~valid).nonzero()[0].tolist()
            raise ValueError(
                f"{int((~valid).sum())} of {valid.numel()} values are no {self.structure._name()} of their instance, "
                f"the first of them at {first} of {tuple(valid.shape)}"
            )

    def entropy(self) -> torch.Tensor:
        return self._unflat(self.structure.entropy(*self._flat()))


class RelaxedStructureDistribution(_Distribution):
    """
    The distribution of `marginals((s + Gumbel) / temperature)`, points of the marginal polytope that are differentiable
    in the scores: for a categorical variable the Gumbel-softmax of torch's `RelaxedOneHotCategorical`. It has no
    density in closed form over structures, hence no `log_prob`.

    # Errors

    `ConfigurationError` for a temperature that is not above 0.
    """

    has_rsample = True

    def __init__(
        self,
        structure: LatentStructure,
        scores: torch.Tensor,
        mask: Optional[torch.Tensor],
        temperature: float,
        validate_args: Optional[bool] = None,
    ) -> None:
        self.temperature = positive("temperature", temperature)
        super().__init__(structure, scores, mask, validate_args)

    support = constraints.independent(constraints.unit_interval, 1)

    def expand(self, batch_shape: Any, _instance: Optional[Distribution] = None) -> Distribution:
        """The same distribution in a larger batch, as torch's own."""
        new = super().expand(batch_shape, _instance)
        new.temperature = self.temperature
        return new

    def rsample(self, sample_shape: Any = torch.Size()) -> torch.Tensor:
        """`(*sample_shape, *batch, *event)`, with the exact gradient at the scores."""
        shape = self._extended_shape(torch.Size(sample_shape))
        number = torch.Size(sample_shape).numel()
        scores, mask = self._flat()
        perturbed = scores.expand(number, *scores.shape)
        perturbed = (perturbed + gumbel(perturbed)) / self.temperature
        masks = None if mask is None else mask.expand(number, *mask.shape).flatten(0, 1)
        return self.structure.marginals(perturbed.flatten(0, 1), masks).view(shape)


@register_kl(StructureDistribution, StructureDistribution)
def _kl_divergence(p: StructureDistribution, q: StructureDistribution) -> torch.Tensor:
    if vars(p.structure) != vars(q.structure) or type(p.structure) is not type(q.structure):
        raise NotImplementedError("the distributions are over different structures")
    (scores, mask), (other_scores, other_mask) = p._flat(), q._flat()
    if mask is not None and other_mask is not None and not torch.equal(mask, other_mask):
        raise ValueError("the distributions have different masks")
    return p._unflat(p.structure.kl_divergence(scores, other_scores, mask))
