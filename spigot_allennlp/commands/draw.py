import argparse
import json
from pathlib import Path
from typing import Any, List, Optional

from allennlp.commands.subcommand import Subcommand
from allennlp.common import Params, Tqdm
from allennlp.common.checks import ConfigurationError
from allennlp.data import DatasetReader

from spigot_allennlp.commands.errors import as_messages
from spigot_allennlp.visualization import (
    Analysis,
    analysis_from_instance,
    draw_sentence,
    has_gold_arcs,
    page,
    read_predictions,
    score,
    sentence_section,
)

_READERS = {".conllu": "conllu_graphs", ".sdp": "sdp"}


@Subcommand.register("draw")
class Draw(Subcommand):
    """
    `allennlp draw predictions.jsonl -o drawing.html`: what `allennlp predict` wrote, drawn by spaCy's displaCy.
    """

    def add_subparser(self, parser: argparse._SubParsersAction) -> argparse.ArgumentParser:
        description = """Draw the trees (above the words) and graphs (below them) that `allennlp predict` has written,
            and where gold ones are given, what became of them."""
        subparser = parser.add_parser(self.name, description=description, help="Draw predicted trees and graphs.")
        subparser.add_argument("predictions", type=str, help="the JSON lines that `allennlp predict` wrote")
        subparser.add_argument(
            "-o",
            "--output",
            type=str,
            required=True,
            help="an HTML page (OUT.html), or a directory for an SVG of each sentence (1.svg, 2.svg, ...)",
        )
        subparser.add_argument(
            "--gold",
            type=str,
            help="the right trees, graphs or labels of the same sentences: CoNLL-U (.conllu), SDP (.sdp), or, to "
            "compare two models, the predictions of another one (.jsonl)",
        )
        subparser.add_argument(
            "--gold-reader",
            type=str,
            help="the dataset reader for --gold, as JSON, where it is not the default one of the file's suffix; e.g. "
            '\'{"type": "conllu_graphs", "labels": "coarse"}\' for a model with coarse labels',
        )
        subparser.set_defaults(func=_draw_from_args)
        return subparser


@as_messages()
def _draw_from_args(args: argparse.Namespace) -> None:
    draw(args.predictions, args.output, args.gold, args.gold_reader)


def draw(
    predictions_file: str, output: str, gold_file: Optional[str] = None, gold_reader: Optional[str] = None
) -> None:
    """
    # Parameters

    predictions_file : `str`
        JSON lines from `allennlp predict`.
    output : `str`
        Path of an HTML file, or of a directory, which is made if needed.
    gold_file : `str`, optional (default = `None`)
        Gold annotation of the same sentences.
    gold_reader : `str`, optional (default = `None`)
        JSON.

    # Errors

    `ConfigurationError` for a line that is not a prediction, for gold sentences that differ from the predicted ones,
    and for an output that is neither kind.
    """
    suffix = Path(output).suffix
    if suffix not in ("", ".html") and not Path(output).is_dir():
        raise ConfigurationError(f"the output '{output}' ends in '{suffix}'; valid: a file *.html, or a directory")
    predicted = read_predictions(predictions_file)
    gold: List[Optional[Analysis]] = [None] * len(predicted)
    if gold_file is not None:
        gold = _aligned(predicted, _read_gold(gold_file, gold_reader), predictions_file, gold_file)
    elif gold_reader is not None:
        raise ConfigurationError("--gold-reader says how to read --gold, which is not given")
    pairs = Tqdm.tqdm(list(zip(predicted, gold)), desc="drawing", delay=2)

    if suffix == ".html":
        sections = [
            sentence_section(number, found, right, None if right is None else score(found, right))
            for number, (found, right) in enumerate(pairs, 1)
        ]
        compared = any(right is not None and has_gold_arcs(found, right) for found, right in zip(predicted, gold))
        Path(output).parent.mkdir(parents=True, exist_ok=True)
        html = page(Path(predictions_file).name, sections, compared)
        # JSON can hold what UTF-8 cannot: half a character.
        Path(output).write_text(html, encoding="utf-8", errors="xmlcharrefreplace")
        return
    Path(output).mkdir(parents=True, exist_ok=True)
    for number, (found, right) in enumerate(pairs, 1):
        for name, sentence in found.sentences.items():
            svg = draw_sentence(sentence, None if right is None else right.sentences.get(name))
            (Path(output) / f"{name}{number}.svg").write_text(svg, encoding="utf-8")


def _read_gold(file_path: str, reader: Optional[str]) -> List[Analysis]:
    suffix = Path(file_path).suffix
    if reader is None and suffix in (".json", ".jsonl"):
        return read_predictions(file_path)
    if reader is None and suffix not in _READERS:
        raise ConfigurationError(
            f"cannot tell what {file_path} is; valid: *.conllu, *.sdp, *.jsonl (predictions), or any file with "
            "--gold-reader"
        )
    params: Any = {"type": _READERS.get(suffix)}
    if reader is not None:
        try:
            params = json.loads(reader)
        except json.JSONDecodeError as error:
            raise ConfigurationError(f"--gold-reader is not JSON ({error}): {reader}") from None
        if not isinstance(params, dict):
            raise ConfigurationError(f'--gold-reader is {reader}; valid: an object such as {{"type": "sdp"}}')
    return [analysis_from_instance(instance) for instance in DatasetReader.from_params(Params(params)).read(file_path)]


def _aligned(
    predicted: List[Analysis], gold: List[Analysis], predictions_file: str, gold_file: str
) -> List[Optional[Analysis]]:
    """The gold analysis of each prediction: that with its id where all have one, else the one in its place."""
    by_id = {analysis.sentence_id: analysis for analysis in gold}
    if None in by_id or any(analysis.sentence_id is None for analysis in predicted):
        if len(predicted) != len(gold):
            raise ConfigurationError(
                f"{predictions_file} has {len(predicted)} sentences, {gold_file} {len(gold)}; without ids in both (as "
                "`allennlp predict --use-dataset-reader` writes them) they have to be the same ones in the same order"
            )
        found = list(gold)
    else:
        found = []
        for analysis in predicted:
            if analysis.sentence_id not in by_id:
                raise ConfigurationError(
                    f"{predictions_file} has the sentence '{analysis.sentence_id}', which {gold_file} lacks"
                )
            found.append(by_id[analysis.sentence_id])
    for number, (analysis, right) in enumerate(zip(predicted, found), 1):
        for name, sentence in analysis.sentences.items():
            other = right.sentences.get(name)
            if other is not None and other.words != sentence.words:
                raise ConfigurationError(
                    f"sentence {number} of {predictions_file} is {' '.join(sentence.words)!r}, but "
                    f"{' '.join(other.words)!r} in {gold_file}; valid: the same sentences, tokenised alike"
                )
    return found
