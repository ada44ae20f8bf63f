"""
Readers of sentences with dependency trees and graphs, and what writes their formats; of sentences with labels.
"""

from spigot_allennlp.dataset_readers.clusters import LatentClustersDatasetReader
from spigot_allennlp.dataset_readers.conllu_format import parse_conllu, write_conllu
from spigot_allennlp.dataset_readers.conllu_graphs import ConlluGraphsDatasetReader
from spigot_allennlp.dataset_readers.dependency_graph import DependencyGraph
from spigot_allennlp.dataset_readers.dependency_graph_reader import DependencyGraphReader
from spigot_allennlp.dataset_readers.full_batch import FullBatchDataLoader
from spigot_allennlp.dataset_readers.proportional_scheduler import ProportionalScheduler
from spigot_allennlp.dataset_readers.sdp import SdpDatasetReader
from spigot_allennlp.dataset_readers.sdp_format import SDP_HEADER, parse_companion, parse_sdp, write_sdp
from spigot_allennlp.dataset_readers.snli_pairs import SnliPairsDatasetReader
from spigot_allennlp.dataset_readers.sst_format import SentimentTree, parse_sst
from spigot_allennlp.dataset_readers.sst_trees import SstTreesDatasetReader

__all__ = [
    "SDP_HEADER",
    "ConlluGraphsDatasetReader",
    "DependencyGraph",
    "DependencyGraphReader",
    "FullBatchDataLoader",
    "LatentClustersDatasetReader",
    "ProportionalScheduler",
    "SdpDatasetReader",
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
