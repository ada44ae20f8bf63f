"""
Pictures of trees and graphs, and reports on models.
"""

from spigot_allennlp.visualization.analysis import (
    Analysis,
    analysis_from_instance,
    analysis_from_output,
    read_predictions,
)
from spigot_allennlp.visualization.comparison import (
    ComparedArc,
    compare_arcs,
    graph_arcs,
    has_gold_arcs,
    score,
    tree_arcs,
)
from spigot_allennlp.visualization.drawing import draw_sentence
from spigot_allennlp.visualization.page import page, sentence_section
from spigot_allennlp.visualization.report import Pair, report

__all__ = [
    "Analysis",
    "ComparedArc",
    "Pair",
    "analysis_from_instance",
    "analysis_from_output",
    "compare_arcs",
    "draw_sentence",
    "graph_arcs",
    "has_gold_arcs",
    "page",
    "read_predictions",
    "report",
    "score",
    "sentence_section",
    "tree_arcs",
]
