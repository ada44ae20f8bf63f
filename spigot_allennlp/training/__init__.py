"""
The trainer, whose runs can be resumed exactly, and what it takes: callbacks.
"""

from spigot_allennlp.training.distributed_trainer import DistributedTrainer
from spigot_allennlp.training.grouped_norms import GroupedNormTrainer
from spigot_allennlp.training.latent_diagnostics import LatentDiagnostics
from spigot_allennlp.training.nan_detecting_trainer import NanDetectingTrainer
from spigot_allennlp.training.resumable_trainer import ResumableTrainer

__all__ = ["DistributedTrainer", "GroupedNormTrainer", "NanDetectingTrainer", "LatentDiagnostics", "ResumableTrainer"]
