import argparse
from pathlib import Path
from typing import Any, Dict

from allennlp.commands.subcommand import Subcommand
from allennlp.common import Tqdm
from allennlp.common.checks import ConfigurationError, check_for_gpu
from allennlp.common.util import lazy_groups_of, prepare_environment
from allennlp.data import Instance
from allennlp.data.fields import TextField
from allennlp.models import load_archive
from allennlp.predictors import Predictor

from spigot_allennlp.checks import at_least, at_least_one
from spigot_allennlp.commands.errors import as_messages
from spigot_allennlp.version import VERSION
from spigot_allennlp.visualization import Pair, analysis_from_instance, analysis_from_output, report


@Subcommand.register("report")
class Report(Subcommand):
    """
    `allennlp report model.tar.gz dev.conllu -o report.html`: what a model gets right and wrong on a file.
    """

    def add_subparser(self, parser: argparse._SubParsersAction) -> argparse.ArgumentParser:
        description = """Evaluate a model on a file and write one HTML page: metrics, confusions of labels, the shape of
            its trees, and the worst sentences, drawn."""
        subparser = parser.add_parser(
            self.name, description=description, help="Report what a model gets right and wrong on a file."
        )
        subparser.add_argument("archive_file", type=str, help="path to an archived trained model")
        subparser.add_argument(
            "input_file", type=str, help="the evaluation data, as the model's dataset reader reads them"
        )
        subparser.add_argument("-o", "--output-file", type=str, required=True, help="the HTML page to write")
        subparser.add_argument("--num-worst", type=int, default=20, help="how many of the worst sentences to draw")
        subparser.add_argument("--batch-size", type=int, default=32, help="how many sentences to predict at once")
        subparser.add_argument("--weights-file", type=str, help="a path that overrides which weights file to use")
        subparser.add_argument("--cuda-device", type=int, default=-1, help="id of GPU to use (if any)")
        subparser.add_argument(
            "--overrides",
            type=str,
            default="",
            help="a json(net) structure used to override the experiment configuration",
        )
        subparser.set_defaults(func=_report_from_args)
        return subparser


@as_messages()
def _report_from_args(args: argparse.Namespace) -> None:
    write_report(
        args.archive_file,
        args.input_file,
        args.output_file,
        num_worst=args.num_worst,
        batch_size=args.batch_size,
        weights_file=args.weights_file,
        cuda_device=args.cuda_device,
        overrides=args.overrides,
    )


def write_report(
    archive_file: str,
    input_file: str,
    output_file: str,
    num_worst: int = 20,
    batch_size: int = 32,
    weights_file: str = None,
    cuda_device: int = -1,
    overrides: str = "",
) -> Dict[str, Any]:
    """
    # Parameters

    The parameters are the command's options.

    # Returns

    `Dict[str, Any]`
        The metrics.

    # Errors

    `ConfigurationError` for numbers that make no sense, and a file without instances.
    """
    at_least(0, "--num-worst", num_worst)
    at_least_one("--batch-size", batch_size)
    check_for_gpu(cuda_device)
    archive = load_archive(archive_file, weights_file=weights_file, cuda_device=cuda_device, overrides=overrides)
    # Seeds, as `allennlp evaluate` sets them.
    prepare_environment(archive.config.duplicate())
    predictor = Predictor.from_archive(archive)
    model = archive.model
    instances = list(archive.validation_dataset_reader.read(input_file))
    if not instances:
        raise ConfigurationError(f"{input_file}: the file holds no instances")
    model.get_metrics(reset=True)
    # Batches of instances of about the same length hold little padding; the page has them in the order of the file.
    order = sorted(range(len(instances)), key=lambda number: _length(instances[number]))
    pairs: Dict[int, Pair] = {}
    for batch in lazy_groups_of(Tqdm.tqdm(order, desc="predicting", delay=2), batch_size):
        outputs = predictor.predict_batch_instance([instances[number] for number in batch])
        for number, output in zip(batch, outputs):
            pairs[number] = Pair(analysis_from_output(output), analysis_from_instance(instances[number]))
    metrics = model.get_metrics(reset=True)
    title = f"{Path(archive_file).name} on {Path(input_file).name}"
    notes = [
        f"Model: {type(model).__name__} from {archive_file}",
        f"Data: {input_file}, {len(instances)} instances",
        f"spigot_allennlp {VERSION}",
    ]
    Path(output_file).parent.mkdir(parents=True, exist_ok=True)
    html = report(title, metrics, [pairs[number] for number in range(len(pairs))], num_worst, notes)
    Path(output_file).write_text(html, encoding="utf-8", errors="xmlcharrefreplace")
    return metrics


def _length(instance: Instance) -> int:
    return sum(len(field) for field in instance.fields.values() if isinstance(field, TextField))
