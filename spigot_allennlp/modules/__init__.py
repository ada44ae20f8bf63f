"""
Neural modules: what scores parts, and what turns a structure into vectors.
"""

from spigot_allennlp.modules.arc_labeler import ArcLabeler
from spigot_allennlp.modules.arc_pruner import ArcPruner
from spigot_allennlp.modules.arc_scorer import ArcScorer, BiaffineArcScorer
from spigot_allennlp.modules.attention_pooling import AttentionPooling
from spigot_allennlp.modules.deterministic_roles import DeterministicRoles
from spigot_allennlp.modules.distinct_words import DistinctWordsCharacterEncoder
from spigot_allennlp.modules.embedding_dropout import EmbeddingDropout
from spigot_allennlp.modules.graph_composer import GraphComposer
from spigot_allennlp.modules.graph_head import GraphHead
from spigot_allennlp.modules.graph_loss import CrossEntropyGraphLoss, GraphLoss, HingeGraphLoss
from spigot_allennlp.modules.head_composer import HeadComposer
from spigot_allennlp.modules.mlp_arc_scorer import MlpArcScorer
from spigot_allennlp.modules.mlp_graph_head import MlpGraphHead
from spigot_allennlp.modules.padded_lstm import PaddedLstm
from spigot_allennlp.modules.parser_head import ParserHead
from spigot_allennlp.modules.pos_pairs import PosPairs
from spigot_allennlp.modules.predicate_scorer import PredicateScorer
from spigot_allennlp.modules.relations import Relations
from spigot_allennlp.modules.root import RootSentinel
from spigot_allennlp.modules.text_encoder import TextEncoder
from spigot_allennlp.modules.tree_evaluator import TreeEvaluator
from spigot_allennlp.modules.tree_loss import (
    CrfTreeLoss,
    CrossEntropyTreeLoss,
    FenchelYoungTreeLoss,
    HingeTreeLoss,
    PerturbedTreeLoss,
    SparseMapTreeLoss,
    TreeLoss,
)
from spigot_allennlp.modules.weight_schedule import ConstantWeight, LinearWeight, WeightSchedule
from spigot_allennlp.modules.word_dropout import WordDropoutEmbedding

__all__ = [
    "ArcLabeler",
    "ArcPruner",
    "ArcScorer",
    "AttentionPooling",
    "BiaffineArcScorer",
    "ConstantWeight",
    "CrfTreeLoss",
    "CrossEntropyGraphLoss",
    "CrossEntropyTreeLoss",
    "DeterministicRoles",
    "DistinctWordsCharacterEncoder",
    "EmbeddingDropout",
    "FenchelYoungTreeLoss",
    "GraphComposer",
    "GraphHead",
    "GraphLoss",
    "HeadComposer",
    "HingeGraphLoss",
    "HingeTreeLoss",
    "LinearWeight",
    "MlpArcScorer",
    "MlpGraphHead",
    "PaddedLstm",
    "ParserHead",
    "PerturbedTreeLoss",
    "PosPairs",
    "PredicateScorer",
    "Relations",
    "RootSentinel",
    "SparseMapTreeLoss",
    "TextEncoder",
    "TreeEvaluator",
    "TreeLoss",
    "WeightSchedule",
    "WordDropoutEmbedding",
]
