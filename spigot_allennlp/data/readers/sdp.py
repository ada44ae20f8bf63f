from collections.abc import Iterator
from typing import Optional, Union

from allennlp.common.checks import ConfigurationError
from allennlp.data import DatasetReader, TokenIndexer

from spigot_allennlp.data.formats.sdp import CompanionTree, parse_companion, parse_sdp
from spigot_allennlp.data.readers.dependency_graph_reader import DependencyGraphReader
from spigot_allennlp.data.sentence import Sentence
from spigot_allennlp.data.text_files import read_lines, shorten


@DatasetReader.register("sdp")
class SdpDatasetReader(DependencyGraphReader):
    """
    Reads the semantic dependency graphs of SemEval 2014 task 8 and 2015 task 18, in any of their formats
    (`formats/sdp.py`), which it tells apart itself. For the fields see `DependencyGraphReader`; for what is
    refused, `parse_sdp`. The task's unannotated input (`*.tt`, four columns) is read too, to predict on.

    # Parameters

    token_indexers : `Dict[str, TokenIndexer]`, optional (default = `{"tokens": SingleIdTokenIndexer()}`)
        Token indexers of the words.
    companion : `Union[str, List[str]]`, optional (default = `None`)
        Files with the syntactic trees of the sentences, by sentence id: see `parse_companion`. Between them
        they need a tree for every sentence of every file that this reader reads; they may have more. Their
        parts of speech become `tag_`.
    """

    def __init__(
        self,
        token_indexers: Optional[dict[str, TokenIndexer]] = None,
        companion: Optional[Union[str, list[str]]] = None,
        **kwargs,
    ) -> None:
        super().__init__(token_indexers, **kwargs)
        self._companion_paths = [companion] if isinstance(companion, str) else companion or []
        self._companion: Optional[dict[str, CompanionTree]] = None

    def read_sentences(self, file_path: str) -> Iterator[Sentence]:
        if self._companion_paths and self._companion is None:
            self._companion = self._read_companion()
        return parse_sdp(read_lines(file_path), file_path, self._companion, self._trees, self._graphs)

    def _read_companion(self) -> dict[str, CompanionTree]:
        trees: dict[str, CompanionTree] = {}
        for path in self._companion_paths:
            more_trees = parse_companion(read_lines(path), path, self._trees)
            for sentence_id in more_trees.keys() & trees.keys():
                raise ConfigurationError(
                    f"{path}: another companion file has the sentence id {shorten(sentence_id)} already"
                )
            trees.update(more_trees)
        return trees
