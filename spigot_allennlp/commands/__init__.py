"""
Subcommands of `allennlp`.
"""

from spigot_allennlp.commands.draw import Draw
from spigot_allennlp.commands.quickstart import Quickstart
from spigot_allennlp.commands.report import Report
from spigot_allennlp.commands.score import Score
from spigot_allennlp.commands.study import Study

__all__ = ["Draw", "Quickstart", "Report", "Score", "Study"]
