"""
Readers of sentences with dependency trees and graphs, and what writes their formats; of sentences with labels.
"""

from spigot_allennlp.data.formats.conllu import parse_conllu, write_conllu
from spigot_allennlp.data.formats.sdp import SDP_HEADER, parse_companion, parse_sdp, write_sdp
from spigot_allennlp.data.formats.sst import SentimentTree, parse_sst
from spigot_allennlp.data.loaders.full_batch import FullBatchDataLoader
from spigot_allennlp.data.loaders.proportional_scheduler import ProportionalScheduler
from spigot_allennlp.data.readers.clusters import LatentClustersDatasetReader
from spigot_allennlp.data.readers.conllu_graphs import ConlluGraphsDatasetReader
from spigot_allennlp.data.readers.dependency_graph_reader import DependencyGraphReader
from spigot_allennlp.data.readers.listops import ListopsDatasetReader
from spigot_allennlp.data.readers.sdp import SdpDatasetReader
from spigot_allennlp.data.readers.snli_pairs import SnliPairsDatasetReader
from spigot_allennlp.data.readers.sst_trees import SstTreesDatasetReader
from spigot_allennlp.data.sentence import Sentence

__all__ = [
    "SDP_HEADER",
    "ConlluGraphsDatasetReader",
    "DependencyGraphReader",
    "FullBatchDataLoader",
    "LatentClustersDatasetReader",
    "ListopsDatasetReader",
    "ProportionalScheduler",
    "SdpDatasetReader",
    "Sentence",
    "SentimentTree",
    "SnliPairsDatasetReader",
    "SstTreesDatasetReader",
    "parse_companion",
    "parse_conllu",
    "parse_sdp",
    "parse_sst",
    "write_conllu",
    "write_sdp",
]
