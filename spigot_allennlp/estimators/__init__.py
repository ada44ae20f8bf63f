"""
Estimators: what the downstream model sees of a latent structure, and what gradient flows back.
"""

from spigot_allennlp.estimators.estimator import Downstream, Estimator, EstimatorOutput
from spigot_allennlp.estimators.identity import Identity
from spigot_allennlp.estimators.minimum_risk import MinimumRisk
from spigot_allennlp.estimators.perturbation import Blackbox, ImplicitMle
from spigot_allennlp.estimators.perturbed import Perturbed
from spigot_allennlp.estimators.pipeline import Pipeline
from spigot_allennlp.estimators.pulled_back import (
    PulledBack,
    Spigot,
    SpigotCrossEntropy,
    SpigotExponentiatedGradient,
    StraightThrough,
    downstream_gradient,
)
from spigot_allennlp.estimators.reinmax import ReinMax
from spigot_allennlp.estimators.relaxed import (
    GumbelSoftmax,
    GumbelSparseMap,
    Marginals,
    PerturbAndMap,
    SparseMap,
    StraightThroughMarginals,
)
from spigot_allennlp.estimators.score_function import ScoreFunction
from spigot_allennlp.estimators.sparse_marginalization import SparseMarginalization

__all__ = [
    "Blackbox",
    "Downstream",
    "Estimator",
    "EstimatorOutput",
    "GumbelSoftmax",
    "GumbelSparseMap",
    "Identity",
    "ImplicitMle",
    "Marginals",
    "MinimumRisk",
    "PerturbAndMap",
    "Perturbed",
    "Pipeline",
    "PulledBack",
    "ReinMax",
    "ScoreFunction",
    "SparseMap",
    "SparseMarginalization",
    "Spigot",
    "SpigotCrossEntropy",
    "SpigotExponentiatedGradient",
    "StraightThrough",
    "StraightThroughMarginals",
    "downstream_gradient",
]
