"""
`allennlp study`: one config, many estimators, settings and seeds, and what came of them.
"""

from spigot_allennlp.commands.study.command import Study

__all__ = ["Study"]
