"""
Subcommands of `allennlp`.
"""

from spigot_allennlp.commands.study import Study

__all__ = ["Study"]
