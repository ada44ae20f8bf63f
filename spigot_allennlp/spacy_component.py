"""
A parser as a component of a spaCy pipeline. spaCy finds it by its name where this package is installed:

    nlp = spacy.blank("en")
    nlp.add_pipe("spigot_parser", config={"model": "en_ewt"})
    doc = nlp("Some text. It may have several sentences.")

Every token gets its head and relation in the tree, and the document its sentences. `doc._.dependency_graph` is the
graph as a list of `GraphEdge`, and `token._.graph_heads` the heads of one token in it.
"""

from typing import Iterable, Iterator, List, NamedTuple, Optional, Tuple

import numpy
from spacy.attrs import DEP, HEAD, SENT_START
from spacy.language import Language
from spacy.pipeline import Sentencizer
from spacy.tokens import Doc, Token
from spacy.util import minibatch

from spigot_allennlp.data import Sentence
from spigot_allennlp.parser import Parser, load


class GraphEdge(NamedTuple):
    """
    # Parameters

    head : `int`, optional
        Index of the head in the document; `None` marks a top node.
    dependent : `int`
        Index of the dependent in the document.
    label : `str`
        Label of the edge.
    """

    head: Optional[int]
    dependent: int
    label: str


@Language.factory(
    "spigot_parser",
    assigns=["doc._.dependency_graph", "token.dep", "token.head", "token.is_sent_start", "doc.sents"],
    default_config={"model": "en_ewt", "batch_size": 32},
)
def make_spigot_parser(nlp: Language, name: str, model: str, batch_size: int) -> "SpigotParser":
    """
    # Parameters

    nlp : `spacy.Language`
        Pipeline that gets the component.
    name : `str`
        Name of the component in the pipeline.
    model : `str`
        Name of a parser that ships with the package, or path of an archive.
    batch_size : `int`
        Number of sentences that are parsed together.
    """
    return SpigotParser(load(model, batch_size=batch_size))


class SpigotParser:
    """
    Sets trees and graphs. Sentences that an earlier component has split stay as they are; otherwise they are split at
    the punctuation that ends sentences (spaCy's `sentencizer`). Tokens that are blank are not words: they are attached
    to a neighbor, without a relation.

    # Parameters

    parser : `Parser`
        Parser to apply; a parser without trees sets graphs only.
    """

    def __init__(self, parser: Parser) -> None:
        self.parser = parser
        self._sentencizer = Sentencizer()
        if not Doc.has_extension("dependency_graph"):
            Doc.set_extension("dependency_graph", default=None)
            Token.set_extension("graph_heads", getter=_graph_heads)

    def __call__(self, doc: Doc) -> Doc:
        return next(self.pipe([doc]))

    def pipe(self, stream: Iterable[Doc], batch_size: int = 100) -> Iterator[Doc]:
        """
        # Parameters

        stream : `Iterable[Doc]`
            Documents to parse.
        batch_size : `int`, optional (default = `100`)
            Number of documents whose sentences are batched together.
        """
        for docs in minibatch(stream, batch_size):
            docs = list(docs)
            # The words of each sentence, as indices in its document.
            sentences: List[Tuple[int, List[int]]] = []
            for number, doc in enumerate(docs):
                if not doc.has_annotation("SENT_START"):
                    doc = self._sentencizer(doc)
                for span in doc.sents:
                    words = [token.i for token in span if not token.is_space]
                    if words:
                        sentences.append((number, words))
            parsed = self.parser.parse_words([docs[number][i].text for i in words] for number, words in sentences)
            by_doc: List[List[Tuple[List[int], Sentence]]] = [[] for _ in docs]
            for (number, words), sentence in zip(sentences, parsed):
                by_doc[number].append((words, sentence))
            for doc, analyses in zip(docs, by_doc):
                _annotate(doc, analyses)
                yield doc


def _annotate(doc: Doc, analyses: List[Tuple[List[int], Sentence]]) -> None:
    """Each sentence is given with the indices of its words in the document."""
    heads = numpy.arange(len(doc))
    relations = [""] * len(doc)
    starts = numpy.full(len(doc), -1)
    starts[[span.start for span in doc.sents]] = 1
    edges = []
    for words, sentence in analyses:
        for i, head, relation in zip(words, sentence.heads or (), sentence.deprels or relations):
            # In spaCy, the root is its own head.
            heads[i] = words[head - 1] if head else i
            relations[i] = relation if head else "ROOT"
        edges += [GraphEdge(None, words[top - 1], label) for top, label in (sentence.tops or {}).items()]
        edges += [
            GraphEdge(words[head - 1], words[dependent - 1], label)
            for (dependent, head), label in (sentence.arcs or {}).items()
        ]
    for span in doc.sents:
        words_of_span = [token.i for token in span if not token.is_space]
        for token in span:
            if token.is_space and words_of_span:
                before = [i for i in words_of_span if i < token.i]
                heads[token.i] = before[-1] if before else words_of_span[0]
    labels = [doc.vocab.strings.add(relation) for relation in relations]
    columns = [(heads - numpy.arange(len(doc))).astype("int64"), labels, starts]
    array = numpy.array([numpy.asarray(column, dtype="int64").astype("uint64") for column in columns]).T
    if any(sentence.heads is not None for _, sentence in analyses):
        doc.from_array([HEAD, DEP, SENT_START], array)
    doc._.dependency_graph = sorted(edges, key=lambda edge: (edge.dependent, -1 if edge.head is None else edge.head))


def _graph_heads(token: Token) -> List[Tuple[Optional[Token], str]]:
    """The heads of a token in the graph, each with the label; `None` in the place of one marks a top node."""
    return [
        (None if edge.head is None else token.doc[edge.head], edge.label)
        for edge in token.doc._.dependency_graph or []
        if edge.dependent == token.i
    ]
