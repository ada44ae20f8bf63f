import argparse
import json
import sys
from pathlib import Path
from typing import Callable, Dict, Iterable, List, Optional, Tuple

from allennlp.commands.subcommand import Subcommand
from allennlp.common.checks import ConfigurationError

from spigot_allennlp.commands.errors import as_messages
from spigot_allennlp.data import Sentence, parse_conllu, parse_sdp
from spigot_allennlp.data.alignment import TokenizedText, align
from spigot_allennlp.data.sentence import coarse_label
from spigot_allennlp.data.text_files import read_lines
from spigot_allennlp.metrics import EnhancedDependencyScores
from spigot_allennlp.metrics.edge_scores import Edge, precision_recall_f1

_PARSERS: Dict[str, Callable[..., Iterable[Sentence]]] = {"conllu": parse_conllu, "sdp": parse_sdp}
_ROOT = "root"

Scores = Dict[str, Dict[str, float]]


@Subcommand.register("score")
class Score(Subcommand):
    """
    `allennlp score gold.conllu predicted.conllu`: the trees and graphs of one file, scored by a gold file.
    """

    def add_subparser(self, parser: argparse._SubParsersAction) -> argparse.ArgumentParser:
        description = """Score the trees and graphs of a file by the gold ones of another file of the same text. The
            measures are the official ones: ELAS, EULAS, LAS and UAS of the IWPT 2020 and 2021 shared tasks, and the
            labeled and unlabeled precision, recall, F1 and exact match of SemEval 2014 Task 8 and 2015 Task 18. The
            files may split the text into words differently."""
        subparser = parser.add_parser(
            self.name, description=description, help="Score a file of trees and graphs by a gold one."
        )
        subparser.add_argument("gold_file", type=str, help="the right trees and graphs: CoNLL-U or SDP")
        subparser.add_argument("system_file", type=str, help="the trees and graphs to score: CoNLL-U or SDP")
        subparser.add_argument(
            "--format",
            choices=sorted(_PARSERS),
            help="the format of both files (default: by their names, *.conllu and *.sdp)",
        )
        subparser.add_argument("--json", action="store_true", help="print one JSON object, unrounded")
        subparser.set_defaults(func=_score_from_args)
        return subparser


@as_messages()
def _score_from_args(args: argparse.Namespace) -> None:
    scores = score_files(args.gold_file, args.system_file, args.format)
    if args.json:
        print(json.dumps(scores, indent=2))
        return
    print(f"{'':10}{'precision':>10}{'recall':>10}{'F1':>10}{'exact':>10}   (percent)")
    for name, values in scores.items():
        cells = (f"{100 * value:10.2f}" for value in values.values())
        print(f"{name:10}{''.join(cells)}")
    missing = [kind for kind, name in (("trees", "LAS"), ("graphs", "labeled")) if name not in scores]
    if missing:
        print(f"not compared: {' and '.join(missing)}, which are not in both files", file=sys.stderr)


def score_files(gold_file: str, system_file: str, file_format: Optional[str] = None) -> Scores:
    """
    The words of the two files are aligned by the characters that they stand for (`align`). A system edge is right where
    its two words are aligned with the words of a gold edge. With gold words, all measures equal the model's own
    metrics.

    # Parameters

    gold_file, system_file : `str`
        Gold file, and the file to score.
    file_format : `str`, optional (default = `None`)
        `"conllu"` or `"sdp"`; `None` goes by the names of the files.

    # Returns

    `Dict[str, Dict[str, float]]`
        `precision`, `recall` and `f1`, from 0 to 1, of what both files have:

        - `words`: which words are aligned.
        - `UAS`, `LAS`: the edges of basic trees, `LAS` with their relations, whose subtypes (after `:`) do not count
          (Zeman et al. 2018, section 5).
        - `ELAS`, `EULAS`: the edges of enhanced graphs (`EnhancedDependencyScores`). CoNLL-U only; paths through empty
          nodes are edges.
        - `labeled` (LP, LR, LF), `unlabeled` (UP, UR, UF): the edges of graphs, with top nodes as edges from a virtual
          node (Oepen et al. 2014, section 4), and `exact_match` (LM, UM), the fraction of gold sentences that are
          sentences of the system, too, with the same edges.

    # Errors

    `ConfigurationError` for a file that is damaged, empty or in an unknown format, texts that differ (with the place
    where they first do), and files that have neither both trees nor both graphs.
    """
    gold, system = (_read(path, file_format) for path in (gold_file, system_file))
    partner = align(gold, system)
    numbers: List[int] = list(range(len(gold.words)))
    # Words that are not aligned get numbers that no gold word has.
    system_numbers = [-1 - word if other is None else other for word, other in enumerate(partner)]
    num_aligned = len(partner) - partner.count(None)
    scores = {"words": precision_recall_f1(num_aligned, len(system.words), len(gold.words))}
    if all(text.sentences[0].heads is not None for text in (gold, system)):
        labeled = all(text.sentences[0].deprels is not None for text in (gold, system))
        for name in ("UAS", *(["LAS"] if labeled else [])):
            trees = [_tree(*side, labeled=name == "LAS") for side in ((gold, numbers), (system, system_numbers))]
            num_correct = len(set(trees[0]).intersection(trees[1]))
            scores[name] = precision_recall_f1(num_correct, len(trees[1]), len(trees[0]))
    if all(text.sentences[0].arcs is not None for text in (gold, system)):
        graphs = (_graphs(gold, numbers), _graphs(system, system_numbers))
        if all(_format(path, file_format) == "conllu" for path in (gold_file, system_file)):
            scores.update(_enhanced(*graphs))
        pairs = [(graphs[0][g], graphs[1][s]) for g, s in _same_sentences(gold, system)]
        for name in ("labeled", "unlabeled"):
            scores[name] = _semantic(*graphs, pairs, len(gold.sentences), labeled=name == "labeled")
    if len(scores) == 1:
        raise ConfigurationError(
            f"there is nothing to compare: {gold_file} has {_annotation(gold)}, {system_file} {_annotation(system)}; "
            "valid: trees in both files, or graphs"
        )
    return scores


def _format(file_path: str, file_format: Optional[str]) -> str:
    suffix = Path(file_path.removesuffix(".gz")).suffix.lstrip(".")
    if file_format is None and suffix not in _PARSERS:
        raise ConfigurationError(
            f"cannot tell the format of {file_path}; valid: files *.conllu and *.sdp, or --format with one of "
            f"{', '.join(_PARSERS)}"
        )
    return file_format or suffix


def _read(file_path: str, file_format: Optional[str]) -> TokenizedText:
    parse = _PARSERS[_format(file_path, file_format)]
    return TokenizedText(list(parse(read_lines(file_path), file_path)), file_path)


def _annotation(text: TokenizedText) -> str:
    first = text.sentences[0]
    kinds = [name for name, values in (("trees", first.heads), ("graphs", first.arcs)) if values is not None]
    return " and ".join(kinds) or "neither trees nor graphs"


def _tree(text: TokenizedText, numbers: List[int], labeled: bool) -> List[Edge]:
    edges = []
    for sentence, offset in zip(text.sentences, text.offsets):
        for word, head in enumerate(sentence.heads):
            label = coarse_label(sentence.deprels[word]) if labeled else ""
            edges.append((numbers[offset + word], numbers[offset + head - 1] if head else _ROOT, label))
    return edges


def _graphs(text: TokenizedText, numbers: List[int]) -> List[List[Edge]]:
    """The edges of each sentence."""
    return [
        [
            (numbers[offset + dependent - 1], numbers[offset + head - 1] if head else _ROOT, label)
            for dependent, head, label in sentence.edges()
        ]
        for sentence, offset in zip(text.sentences, text.offsets)
    ]


def _enhanced(gold: List[List[Edge]], system: List[List[Edge]]) -> Scores:
    metric = EnhancedDependencyScores()
    metric(*([edge for edges in side for edge in edges] for side in (system, gold)))
    values = metric.get_metric()
    return {
        name.upper(): {
            "precision": values[f"{name}_precision"],
            "recall": values[f"{name}_recall"],
            "f1": values[name],
        }
        for name in ("elas", "eulas")
    }


def _same_sentences(gold: TokenizedText, system: TokenizedText) -> List[Tuple[int, int]]:
    """Gold and system sentences that stand for the same characters."""
    sentence_at = {span: sentence for sentence, span in enumerate(system.spans)}
    return [(sentence, sentence_at[span]) for sentence, span in enumerate(gold.spans) if span in sentence_at]


def _semantic(
    gold: List[List[Edge]],
    system: List[List[Edge]],
    pairs: List[Tuple[List[Edge], List[Edge]]],
    num_sentences: int,
    labeled: bool,
) -> Dict[str, float]:
    def items(edges: List[Edge]) -> set:
        return {(*edge[:2], edge[2] if labeled and edge[1] != _ROOT else "") for edge in edges}

    gold_items, system_items = ({item for edges in side for item in items(edges)} for side in (gold, system))
    scores = precision_recall_f1(len(gold_items & system_items), len(system_items), len(gold_items))
    num_exact = sum(items(first) == items(second) for first, second in pairs)
    return {**scores, "exact_match": num_exact / num_sentences}
