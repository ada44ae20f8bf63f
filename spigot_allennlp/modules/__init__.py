"""
Neural modules: what scores parts, and what turns a structure into vectors.
"""

from spigot_allennlp.modules.arc_labeler import ArcLabeler
from spigot_allennlp.modules.arc_scorer import ArcScorer, BiaffineArcScorer
from spigot_allennlp.modules.attention_pooling import AttentionPooling
from spigot_allennlp.modules.head_composer import HeadComposer
from spigot_allennlp.modules.mlp_arc_scorer import MlpArcScorer
from spigot_allennlp.modules.parser_head import ParserHead
from spigot_allennlp.modules.root import RootSentinel
from spigot_allennlp.modules.text_encoder import TextEncoder
from spigot_allennlp.modules.weight_schedule import ConstantWeight, LinearWeight, WeightSchedule

__all__ = [
    "ArcLabeler",
    "ArcScorer",
    "AttentionPooling",
    "BiaffineArcScorer",
    "ConstantWeight",
    "HeadComposer",
    "LinearWeight",
    "MlpArcScorer",
    "ParserHead",
    "RootSentinel",
    "TextEncoder",
    "WeightSchedule",
]
