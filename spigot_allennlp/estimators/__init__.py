"""
Estimators: what the downstream model sees of a latent structure, and what gradient flows back.
"""

from spigot_allennlp.estimators.estimator import Downstream, Estimator, EstimatorOutput
from spigot_allennlp.estimators.minimum_risk import MinimumRisk
from spigot_allennlp.estimators.perturbation import Blackbox, ImplicitMle
from spigot_allennlp.estimators.pipeline import Pipeline
from spigot_allennlp.estimators.pulled_back import (
    PulledBack,
    Spigot,
    SpigotCrossEntropy,
    SpigotExponentiatedGradient,
    StraightThrough,
    downstream_gradient,
)
from spigot_allennlp.estimators.relaxed import (
    GumbelSoftmax,
    Marginals,
    PerturbAndMap,
    SparseMap,
    StraightThroughMarginals,
)
from spigot_allennlp.estimators.score_function import ScoreFunction

__all__ = [
    "Blackbox",
    "Downstream",
    "Estimator",
    "EstimatorOutput",
    "GumbelSoftmax",
    "ImplicitMle",
    "Marginals",
    "MinimumRisk",
    "PerturbAndMap",
    "Pipeline",
    "PulledBack",
    "ScoreFunction",
    "SparseMap",
    "Spigot",
    "SpigotCrossEntropy",
    "SpigotExponentiatedGradient",
    "StraightThrough",
    "StraightThroughMarginals",
    "downstream_gradient",
]
