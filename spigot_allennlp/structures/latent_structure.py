from typing import Optional, Tuple, Type, Union

import torch
from allennlp.common import Registrable
from allennlp.common.checks import ConfigurationError

from spigot_allennlp.functional.derivatives import refuse_transforms
from spigot_allennlp.functional.sparsemap import CompiledOracle, Oracle, sparse_distribution, sparsemap_project
from spigot_allennlp.functional.trees import legal_arcs


def registered_name(base: Type[Registrable], subclass: type) -> str:
    """
    The name by which configs know `subclass`, or, if it has none, its own.
    """
    for name, (registered, _) in Registrable._registry[base].items():
        if registered is subclass:
            return f"'{name}'"
    return subclass.__name__


LARGEST_TOTAL = 1e29
"""
What an instance's number of parts times its largest score may reach in any operation. Beyond, a structure of bad scores
could not be told from one with a forbidden part, for which the kernels write `runtime.FORBIDDEN`.
"""

LARGEST_SUMMED_TOTAL = 2.0**53
"""
The same for operations that sum over structures. Beyond, float64 cannot hold the difference of 1 between two
structures' scores, on which their probabilities depend.
"""

OPERATIONS = (
    "argmax",
    "log_partition",
    "marginals",
    "project",
    "sample",
    "top_k",
    "log_prob",
    "entropy",
    "cross_entropy",
    "kl_divergence",
    "log_count",
    "sparse_distribution",
)

# Those that are derived, by the primitive that they are derived from.
_DERIVED = {
    **dict.fromkeys(
        ("marginals", "log_prob", "entropy", "cross_entropy", "kl_divergence", "log_count"), "_log_partition"
    ),
    "sparse_distribution": "_argmax",
}


class LatentStructure(Registrable):
    """
    A set of combinatorial structures: stateless, batched and masked.

    A structure is a 0/1 vector over *parts* (arcs, clusters, transitions); `s` scores the parts, `Y` is the set of
    feasible structures, `M = conv(Y)` its marginal polytope, and `p(z; s)` the Gibbs distribution
    `exp(<s, z> - log Z(s))` on `Y`. Shapes are given for arcs: `(batch, dependents, heads)`, where
    `scores[b, d, h]` scores the arc `h -> d` and index 0 is ROOT. `mask` is `(batch, tokens)`, true for ROOT and
    for real tokens. Illegal parts (row 0, the diagonal, padding) are exactly 0 in every output and receive
    exactly 0 gradient, whatever their scores. A score of `-inf` forbids a part.

    Scores in half precision are computed in float32 and returned in their own type. A row of the batch that is all
    padding gives zeros and a log-partition of 0.

    # Errors

    Every operation raises `ValueError` for scores that are NaN or `+inf`, for finite scores that are too large for
    float64 (see `LARGEST_TOTAL` and `LARGEST_SUMMED_TOTAL`), for shapes that do not fit, for a mask that is not a
    boolean prefix, and where the `-inf` scores of an instance leave no structure.

    # For implementers

    A new structure is one file: `legal_parts`, and as many as it can of the underscored primitives `_argmax`,
    `_log_partition`, `_marginals`, `_project`, `_sample` and `_top_k`. They receive checked scores in float32 or
    float64 whose illegal parts are 0. Everything else is derived here, once; `supports` says what is there.
    """

    default_implementation = "projective_tree"

    # What a shape looks like in error messages; its length is the number of dimensions of scores.
    dimensions: Tuple[str, ...] = ("batch", "tokens", "tokens")

    # Over how many of the last dimensions parts compete: every structure has the same number of them there, so that a
    # constant added to their scores changes nothing. 0 where a structure may have any number.
    competing_dimensions: int = 0

    # Whether each row along the last dimension is one choice, independent of the other rows.
    independent_rows: bool = False

    # Whether the last dimension holds the labels of a part.
    labeled: bool = False

    # Whether every structure is a tree over the tokens, and whether each has exactly one arc from ROOT.
    always_tree: bool = False
    single_root: bool = False

    # The operations

    def legal_parts(self, scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """
        Which parts exist, as a boolean tensor of the scores' shape. Of `scores` only the shape counts.
        """
        return legal_arcs(mask)

    def argmax(self, scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """
        MAP inference: a vertex `argmax_{z in Y} <s, z>` as exact 0/1 parts in the scores' shape and type. Ties are
        broken deterministically. Carries no gradient.
        """
        checked, mask, forbidding = self._check(scores.detach(), mask, LARGEST_TOTAL)
        if not checked.numel():
            return torch.zeros_like(scores)
        parts = self._argmax(checked, mask)
        if forbidding:
            self._check_feasible(self._total(parts, checked, mask))
        return parts.to(scores.dtype)

    def log_partition(self, scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """
        `log Z(s) = log sum_{z in Y} exp <s, z>`, `(batch,)`. Its gradient are the marginals.
        """
        checked, mask, forbidding = self._check(scores, mask)
        value = self._log_partition(checked, mask)
        if forbidding:
            self._check_feasible(value)
        return value.to(scores.dtype)

    def marginals(self, scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """
        `E_{p(z; s)}[z] = argmax_{m in M} <s, m> + H(m)`, in the scores' shape. Differentiable.
        """
        checked, mask, forbidding = self._check(scores, mask)
        if forbidding:
            self._check_feasible(self._log_partition(checked.detach(), mask))
        return self._marginals(checked, mask).to(scores.dtype)

    def project(self, point: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """
        The Euclidean projection `argmin_{m in M} ||m - point||^2`, in the point's shape; differentiable. A structure
        that offers a relaxation of its polytope says so in its constructor. With scores as the point this is
        SparseMAP (Niculae et al. 2018).
        """
        checked, mask, forbidding = self._check(point, mask, LARGEST_TOTAL)
        if forbidding:
            fixed = checked.detach()
            self._check_feasible(self._total(self._argmax(fixed, mask), fixed, mask))
        return self._project(checked, mask).to(point.dtype)

    def sample(self, scores: torch.Tensor, mask: torch.Tensor, num_samples: int = 1) -> torch.Tensor:
        """
        Exact and independent draws from `p(z; s)`: `(num_samples, batch, dependents, heads)`, from torch's global
        random state. Carry no gradient.
        """
        self._check_count("num_samples", num_samples)
        checked, mask, forbidding = self._check(scores.detach(), mask)
        if not checked.numel():
            return scores.new_zeros(num_samples, *scores.shape)
        if forbidding:
            self._check_feasible(self._log_partition(checked, mask))
        return self._sample(checked, mask, num_samples).to(scores.dtype)

    def top_k(self, scores: torch.Tensor, mask: torch.Tensor, k: int) -> Tuple[torch.Tensor, torch.Tensor]:
        """
        The `k` best distinct structures `(batch, k, dependents, heads)` and their scores `(batch, k)`, best first.
        Where fewer exist, the rest are all-zero structures with score `-inf`. The scores are differentiable.
        """
        self._check_count("k", k)
        checked, mask, _ = self._check(scores, mask, LARGEST_TOTAL)
        if not checked.numel():
            # The empty structure, once.
            totals = scores.new_full((len(scores), k), -torch.inf)
            totals[:, 0] = 0.0
            return scores.new_zeros(len(scores), k, *scores.shape[1:]), totals
        parts, totals = self._top_k(checked.detach(), mask, k)
        self._check_feasible(totals[:, 0])
        differentiable = self._score(parts.transpose(0, 1), checked).t()
        differentiable = differentiable.masked_fill(totals.isneginf(), -torch.inf)
        return parts.to(scores.dtype), differentiable.to(scores.dtype)

    def log_prob(self, parts: torch.Tensor, scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """
        `log p(z; s) = <s, z> - log Z(s)`, `(batch,)`; `parts` may have further dimensions in front (samples), which
        the result keeps. Differentiable in the scores. `parts` is taken to be feasible.
        """
        checked, mask, forbidding = self._check(scores, mask)
        if parts.shape[-scores.dim() :] != scores.shape:
            raise ValueError(f"parts of shape {tuple(parts.shape)} do not fit scores {tuple(scores.shape)}")
        # As in `entropy`: the difference of two large numbers, from which rounding must not make a probability above 1.
        checked = checked.double()
        value = self._log_partition(checked, mask)
        if forbidding:
            self._check_feasible(value)
        return (self._score(parts.to(checked.dtype), checked) - value).clamp(max=0.0).to(scores.dtype)

    def entropy(self, scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """
        `H(p(.; s)) = log Z(s) - <s, E[z]>` in nats, `(batch,)`. Differentiable.
        """
        checked, mask, forbidding = self._check(scores, mask)
        # The difference of two large numbers: in float64 whatever the scores' type.
        checked = checked.double()
        if forbidding:
            self._check_feasible(self._log_partition(checked.detach(), mask))
        value = self._surprise(self._marginals(checked, mask), checked, mask)
        # Rounding must not make the entropy of a certain structure negative.
        return value.clamp(min=0.0).to(scores.dtype)

    def cross_entropy(self, scores: torch.Tensor, other_scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """
        `-E_{p(z; s)}[log p(z; s')] = log Z(s') - <s', E[z]>` in nats, `(batch,)`, for the scores `s` and the other ones
        `s'`; infinite where `s'` forbids a part that `s` uses. Differentiable in both.
        """
        checked, other, mask = self._check_two(scores, other_scores, mask)
        return self._surprise(self._marginals(checked, mask), other, mask).to(scores.dtype)

    def kl_divergence(self, scores: torch.Tensor, other_scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """
        `KL(p(.; s) || p(.; s')) = E_{p(z; s)}[log p(z; s) - log p(z; s')]` in nats, `(batch,)`; infinite where `s'`
        forbids a part that `s` uses. Differentiable in both. With other scores of 0 it is `log_count` less the entropy.
        """
        checked, other, mask = self._check_two(scores, other_scores, mask)
        marginals = self._marginals(checked, mask)
        value = self._surprise(marginals, other, mask) - self._surprise(marginals, checked, mask)
        # Rounding must not make the divergence of equal distributions negative.
        return value.clamp(min=0.0).to(scores.dtype)

    def log_count(self, scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """
        The natural logarithm of the number of structures that use no part of score `-inf`, `(batch,)`, in float64.
        Other scores do not matter.
        """
        checked, mask, forbidding = self._check(scores.detach(), mask)
        uniform = torch.zeros_like(checked, dtype=torch.double).masked_fill(checked.isneginf(), -torch.inf)
        value = self._log_partition(uniform, mask)
        if forbidding:
            self._check_feasible(value)
        return value

    def distribution(
        self, scores: torch.Tensor, mask: torch.Tensor, temperature: float = None, validate_args: bool = None
    ) -> torch.distributions.Distribution:
        """
        `p(z; s)` as a distribution of torch. Scores and mask may have several batch dimensions in front.

        # Parameters

        scores : `torch.Tensor`
            `(..., dependents, heads)`.
        mask : `torch.Tensor`
            `(..., tokens)`.
        temperature : `float`, optional (default = `None`)
            Temperature of the relaxation `marginals((s + Gumbel) / temperature)`, which has an `rsample`; `None` for
            the exact distribution.
        validate_args : `bool`, optional (default = torch's)
            Whether values are checked to be structures.

        # Returns

        `StructureDistribution`, or `RelaxedStructureDistribution` with a temperature.
        """
        # These import this module.
        from spigot_allennlp.structures.distribution import RelaxedStructureDistribution, StructureDistribution

        if temperature is None:
            return StructureDistribution(self, scores, mask, validate_args)
        return RelaxedStructureDistribution(self, scores, mask, temperature, validate_args)

    def sparse_distribution(self, scores: torch.Tensor, mask: torch.Tensor) -> Tuple[torch.Tensor, torch.Tensor]:
        """
        The sparse distribution of SparseMAP (Niculae et al. 2018): a few structures `(batch, k, dependents, heads)`
        whose mean is the Euclidean projection of the scores onto the convex hull of all structures, and their
        probabilities `(batch, k)`, the greatest first and differentiable. Where an instance has fewer, the rest are
        all-zero structures of probability 0. `k` is at most one more than there are parts.
        """
        checked, mask, forbidding = self._check(scores, mask, LARGEST_TOTAL)
        if forbidding:
            fixed = checked.detach()
            self._check_feasible(self._total(self._argmax(fixed, mask), fixed, mask))
        parts, probabilities = self._sparse_distribution(checked, mask)
        return parts.to(scores.dtype), probabilities.to(scores.dtype)

    def num_structures(self, scores: torch.Tensor) -> Optional[int]:
        """
        The greatest number of structures of an instance, where these are so few by nature that each can be tried;
        `None` otherwise.
        """
        return None

    def center(self, values: torch.Tensor, possible: torch.Tensor) -> torch.Tensor:
        """
        `values` of parts without their means over those that compete (`competing_dimensions`): as scores they have the
        same best structure, as a step they have the same projection.

        # Parameters

        values : `torch.Tensor`
            Values in the scores' shape.
        possible : `torch.Tensor`
            Boolean, same shape: the parts that count. The others become 0.
        """
        values = values.masked_fill(~possible, 0.0)
        if self.competing_dimensions == 0:
            return values
        dimensions = tuple(range(-self.competing_dimensions, 0))
        number = possible.sum(dimensions, keepdim=True).clamp(min=1)
        return (values - values.sum(dimensions, keepdim=True) / number).masked_fill(~possible, 0.0)

    def supports(self, operation: str) -> bool:
        """
        Whether this structure implements `operation`, one of the names above.

        # Errors

        `ConfigurationError` for a name that is not an operation.
        """
        if operation not in OPERATIONS:
            raise ConfigurationError(
                f"'{operation}' is not an operation of a structure; valid: {', '.join(OPERATIONS)}"
            )
        primitives = [_DERIVED.get(operation, f"_{operation}")]
        if operation == "project":
            # By default on top of the argmax.
            primitives.append("_argmax")
        return any(getattr(type(self), name) is not getattr(LatentStructure, name) for name in primitives)

    # The primitives

    def _argmax(self, scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        raise self._unsupported("argmax")

    def _log_partition(self, scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        raise self._unsupported("log_partition")

    def _marginals(self, scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        # The marginals are the gradient of the log-partition; a kernel of their own is faster. In inference mode
        # autograd works on normal tensors only, hence the copies.
        differentiable = scores.requires_grad and torch.is_grad_enabled()
        with torch.inference_mode(False), torch.enable_grad():
            if not differentiable:
                scores, mask = scores.detach().clone().requires_grad_(), mask.clone()
            (gradient,) = torch.autograd.grad(
                self._log_partition(scores, mask).sum(), scores, create_graph=differentiable
            )
        return gradient

    def _project(self, point: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        # A formula or a kernel of its own is faster.
        return sparsemap_project(point, self._argmax_oracle(mask))

    def _sample(self, scores: torch.Tensor, mask: torch.Tensor, num_samples: int) -> torch.Tensor:
        raise self._unsupported("sample")

    def _top_k(self, scores: torch.Tensor, mask: torch.Tensor, k: int) -> Tuple[torch.Tensor, torch.Tensor]:
        raise self._unsupported("top_k")

    def _sparse_distribution(self, scores: torch.Tensor, mask: torch.Tensor) -> Tuple[torch.Tensor, torch.Tensor]:
        return sparse_distribution(scores, self._argmax_oracle(mask))

    def _argmax_oracle(self, mask: torch.Tensor) -> Union[Oracle, CompiledOracle]:
        """The argmax in the form that the active-set method asks for it."""
        return lambda scores, rows: self._argmax(scores, mask[rows])

    def _surprise(self, marginals: torch.Tensor, scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """`-E[log p(z; s)]` for a distribution of `z` that has these marginals: `(batch,)`."""
        forbidden = scores.isneginf()
        value = self._log_partition(scores, mask) - self._score(marginals, scores.masked_fill(forbidden, 0.0))
        impossible = (forbidden & (marginals > 0)).flatten(1).any(-1)
        return value.masked_fill(impossible, torch.inf)

    # Checks and conversions

    def _check(
        self, scores: torch.Tensor, mask: torch.Tensor, largest_total: float = LARGEST_SUMMED_TOTAL
    ) -> Tuple[torch.Tensor, torch.Tensor, bool]:
        """
        Scores in float32 or float64 with illegal parts at 0, the mask, and whether any legal score is -inf.
        """
        refuse_transforms(scores)
        if not scores.is_floating_point():
            raise ValueError(f"scores must be of a floating-point type, not {scores.dtype}")
        if scores.dim() != len(self.dimensions):
            raise ValueError(
                f"scores have shape {tuple(scores.shape)}; a {self._name()} takes ({', '.join(self.dimensions)})"
            )
        mask = self._check_mask(scores, mask)
        if scores.dtype in (torch.float16, torch.bfloat16):
            scores = scores.float()
        scores = scores.masked_fill(~self.legal_parts(scores, mask), 0.0)
        if scores.numel() == 0:
            return scores, mask, False
        # Both are NaN if any score is, and NaN fails every comparison.
        low, high = scores.detach().aminmax()
        if not high < torch.inf:
            rows = (~(scores < torch.inf)).flatten(1).any(-1).nonzero().flatten().tolist()
            raise ValueError(f"scores contain NaN or +inf in rows {rows} of the batch; valid: finite, or -inf")
        forbidding = bool(low == -torch.inf)
        largest = largest_total / scores[0].numel()
        if forbidding or not (high <= largest and low >= -largest):
            self._check_size(scores.detach(), largest)
        return scores, mask, forbidding

    @staticmethod
    def _check_size(scores: torch.Tensor, largest: float) -> None:
        too_large = (scores.abs() > largest) & scores.isfinite()
        if too_large.any():
            rows = too_large.flatten(1).any(-1).nonzero().flatten().tolist()
            raise ValueError(
                f"scores in rows {rows} of the batch are too large: {scores[too_large][0].item():.3g}; valid: of "
                f"magnitude up to {largest:.3g} for this operation and size, or -inf for a part that is forbidden"
            )

    def _check_two(
        self, scores: torch.Tensor, other_scores: torch.Tensor, mask: torch.Tensor
    ) -> Tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Both scores in float64, and the mask, where both leave a structure."""
        if scores.shape != other_scores.shape:
            raise ValueError(
                f"the other scores have shape {tuple(other_scores.shape)}, the scores {tuple(scores.shape)}"
            )
        checked = []
        for given in (scores, other_scores):
            given, boolean_mask, forbidding = self._check(given, mask)
            # Differences of large numbers follow.
            checked.append(given.double())
            if forbidding:
                self._check_feasible(self._log_partition(given.detach(), boolean_mask))
        return checked[0], checked[1], boolean_mask

    def _check_mask(self, scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        if scores.size(1) != scores.size(2):
            raise ValueError(f"scores must be ({', '.join(self.dimensions)}), not {tuple(scores.shape)}")
        return self._check_token_mask(mask, (scores.size(0), scores.size(1)))

    def _check_token_mask(self, mask: torch.Tensor, shape: Tuple[int, int]) -> torch.Tensor:
        if mask is None or mask.dtype != torch.bool:
            kind = "None" if mask is None else mask.dtype
            raise ValueError(f"mask must be a boolean tensor (batch, tokens), not {kind}")
        if tuple(mask.shape) != shape:
            raise ValueError(f"mask has shape {tuple(mask.shape)}, the scores need {shape}")
        if (mask[:, 1:] & ~mask[:, :-1]).any():
            rows = (mask[:, 1:] & ~mask[:, :-1]).any(-1).nonzero().flatten().tolist()
            raise ValueError(
                f"mask is true after a false column in rows {rows}: real tokens must come first, and the first "
                "column (ROOT) must be true in every row that is not all padding"
            )
        return mask

    def _check_option_mask(self, scores: torch.Tensor, mask: Optional[torch.Tensor]) -> torch.Tensor:
        """For structures over options `(batch, options)`, where an instance may have any subset of them."""
        if mask is None:
            return torch.ones_like(scores, dtype=torch.bool)
        if mask.dtype != torch.bool or mask.shape != scores.shape:
            raise ValueError(
                f"mask must be a boolean tensor of the scores' shape {tuple(scores.shape)}, or None, "
                f"not {mask.dtype} {tuple(mask.shape)}"
            )
        return mask

    @staticmethod
    def _check_count(name: str, value: int) -> None:
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be a positive integer, not {value!r}")

    def _check_feasible(self, totals: torch.Tensor) -> None:
        infeasible = totals.isneginf()
        if infeasible.any():
            rows = infeasible.nonzero().flatten().tolist()
            raise ValueError(
                f"the scores of rows {rows} of the batch leave no {self._name()}: every one has a part of score -inf"
            )

    @staticmethod
    def _score(parts: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """`<s, z>` over the event's dimensions; absent parts count 0, even those that score -inf."""
        products = torch.where(parts != 0, parts * scores, 0.0)
        return products.flatten(parts.dim() - scores.dim() + 1).sum(-1)

    def _total(self, parts: torch.Tensor, scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """The score of what `_argmax` returned, `(batch,)`; -inf where that is not a structure."""
        return self._score(parts, scores)

    def _name(self) -> str:
        return registered_name(LatentStructure, type(self))

    def _unsupported(self, operation: str) -> ConfigurationError:
        return ConfigurationError(f"{self._name()} does not support the operation '{operation}'")


def check_arcs(structure: LatentStructure) -> LatentStructure:
    """
    `structure`, if its parts are arcs between tokens.

    # Errors

    `ConfigurationError` otherwise.
    """
    return check_dimensions(structure, LatentStructure.dimensions, "arcs", "projective_tree")


def check_dimensions(
    structure: LatentStructure, dimensions: Tuple[str, ...], parts: str, example: str
) -> LatentStructure:
    """
    `structure`, if its parts have these dimensions.

    # Parameters

    structure : `LatentStructure`
        The structure of a model's config.
    dimensions : `Tuple[str, ...]`
        The dimensions that the model scores.
    parts, example : `str`
        Noun for parts of these dimensions, and the name of a structure that has them.

    # Errors

    `ConfigurationError` otherwise.
    """
    if structure.dimensions != dimensions:
        raise ConfigurationError(
            f"structure is {structure._name()}, whose parts are ({', '.join(structure.dimensions)}); valid: one whose "
            f"parts are {parts}, ({', '.join(dimensions)}), such as '{example}'"
        )
    return structure
