"""
A plugin of one's own: a structure, an estimator and a task (reader, model, predictor, config) on top of
spigot_allennlp. Importing it registers all of them.
"""

from docs.examples.rationale.centered_identity import CenteredIdentity
from docs.examples.rationale.model import RationaleClassifier
from docs.examples.rationale.predictor import RationalePredictor
from docs.examples.rationale.reader import ReviewDatasetReader
from docs.examples.rationale.span import Span

__all__ = ["CenteredIdentity", "RationaleClassifier", "RationalePredictor", "ReviewDatasetReader", "Span"]
