import argparse
import shutil
import sys
from pathlib import Path

from allennlp.commands.subcommand import Subcommand
from allennlp.common.checks import ConfigurationError

from spigot_allennlp.commands.errors import as_messages

_PACKAGE = Path(__file__).resolve().parent.parent
_PAGE = "docs/quickstart.md"
_FOLDERS = ("training_configs", "fixtures")


@Subcommand.register("quickstart")
class Quickstart(Subcommand):
    """
    `allennlp quickstart my_project`: a folder with the configs, the embedded data and the first commands.
    """

    def add_subparser(self, parser: argparse._SubParsersAction) -> argparse.ArgumentParser:
        description = """Copy the training configs and the embedded data into a folder, and print the commands that
            train, evaluate and predict there."""
        subparser = parser.add_parser(self.name, description=description, help="Start a project of your own.")
        subparser.add_argument("folder", type=Path, help="where they are copied to")
        subparser.set_defaults(func=_quickstart_from_args)
        return subparser


@as_messages()
def _quickstart_from_args(args: argparse.Namespace) -> None:
    source = _source()
    for name in _FOLDERS:
        if (args.folder / name).exists():
            raise ConfigurationError(f"{args.folder / name} exists already; nothing was copied. Name another folder")
    for name in _FOLDERS:
        shutil.copytree(source / name, args.folder / name)
    sys.stdout.write((source / _PAGE).read_text(encoding="utf-8"))


def _source() -> Path:
    """
    The folder that has the configs, the data and the page: inside an installed package, or the repository around it.
    """
    installed = _PACKAGE / "quickstart"
    return installed if installed.exists() else _PACKAGE.parent
