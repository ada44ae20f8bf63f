from collections.abc import Iterator
from typing import Optional

from allennlp.data import DatasetReader, TokenIndexer

from spigot_allennlp.data.formats.conllu import check_options, parse_conllu
from spigot_allennlp.data.readers.dependency_graph_reader import DependencyGraphReader
from spigot_allennlp.data.sentence import Sentence
from spigot_allennlp.data.text_files import read_lines


@DatasetReader.register("conllu_graphs")
class ConlluGraphsDatasetReader(DependencyGraphReader):
    """
    Reads CoNLL-U: basic trees (HEAD, DEPREL) and enhanced graphs (DEPS), each where the file has them. A head
    0 in DEPS makes a top node. For the fields see `DependencyGraphReader`; for what is refused,
    `parse_conllu`.

    # Parameters

    token_indexers : `Dict[str, TokenIndexer]`, optional (default = `{"tokens": SingleIdTokenIndexer()}`)
        Token indexers of the words.
    empty_nodes : `str`, optional (default = `"collapse"`)
        `"collapse"`: paths through empty nodes become edges (`conj:and>nsubj`); `"drop"`: empty nodes go with
        their edges.
    labels : `str`, optional (default = `"full"`)
        `"full"`, or `"coarse"`: the labels of the graph without what follows the first `:`.
    absent_graphs : `str`, optional (default = `"refuse"`)
        `"refuse"`: either all sentences of a file have edges in DEPS or none; `"empty"`: those without have an empty
        graph, in a file where others have one.
    """

    def __init__(
        self,
        token_indexers: Optional[dict[str, TokenIndexer]] = None,
        empty_nodes: str = "collapse",
        labels: str = "full",
        absent_graphs: str = "refuse",
        **kwargs,
    ) -> None:
        super().__init__(token_indexers, **kwargs)
        check_options(empty_nodes, labels, absent_graphs)
        self._empty_nodes = empty_nodes
        self._labels = labels
        self._absent_graphs = absent_graphs

    def read_sentences(self, file_path: str) -> Iterator[Sentence]:
        return parse_conllu(
            read_lines(file_path),
            file_path,
            self._empty_nodes,
            self._labels,
            self._trees,
            self._graphs,
            self._absent_graphs,
        )
