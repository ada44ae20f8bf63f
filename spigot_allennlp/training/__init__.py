"""
What a trainer takes: callbacks.
"""

from spigot_allennlp.training.latent_diagnostics import LatentDiagnostics

__all__ = ["LatentDiagnostics"]
