"""
Makes of a trained parser the small archive that ships with the package:

    python scripts/pack_parser.py runs/en_ewt/model.tar.gz spigot_allennlp/pretrained/en_ewt/model.tar.gz

The archive holds what prediction and evaluation need: dataset reader, data loader and model of the config, the
vocabulary and the weights. Matrices are stored in half precision with `--mantissa-bits` of their 10 bits of mantissa;
the rest are zeros, which gzip removes. AllenNLP loads them as any others, into parameters of single precision.
"""

import argparse
import gzip
import io
import json
import tarfile
import tempfile
from pathlib import Path
from typing import Any, Dict

import torch
from allennlp.models import load_archive

import spigot_allennlp  # noqa: F401
from spigot_allennlp.files import written_atomically
from spigot_allennlp.models.old_archives import upgraded_config

# Only training reads them.
_TRAINING_KEYS = ("pretrained_file", "initializer")


def main() -> None:
    parser = argparse.ArgumentParser(description="Shrink the archive of a trained parser.")
    parser.add_argument("archive", help="the archive or the serialization directory of a finished run")
    parser.add_argument("output", type=Path, help="the archive to write")
    parser.add_argument("--weights-file", help="weights to use in place of the best epoch's")
    parser.add_argument(
        "-o", "--overrides", default="", help="JSON that overrides the config, as of `allennlp evaluate`"
    )
    parser.add_argument("--mantissa-bits", type=int, default=4, choices=range(1, 11), help="precision of the matrices")
    arguments = parser.parse_args()
    archive = load_archive(arguments.archive, weights_file=arguments.weights_file, overrides=arguments.overrides)
    config = archive.config.as_dict(quiet=True)
    weights = {name: _shrunk(tensor, arguments.mantissa_bits) for name, tensor in archive.model.state_dict().items()}
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        vocabulary = Path(folder) / "vocabulary"
        archive.model.vocab.save_to_files(str(vocabulary))
        model = upgraded_config(config["model"], arguments.archive)
        loader = config.get("validation_data_loader", config["data_loader"])
        kept = {"dataset_reader": config["dataset_reader"], "data_loader": loader, "model": model}
        kept = _without(_TRAINING_KEYS, kept)
        files = {"config.json": json.dumps(kept, indent=2).encode(), "weights.th": _saved(weights)}
        files.update({f"vocabulary/{path.name}": path.read_bytes() for path in sorted(vocabulary.glob("*.txt"))})
    with written_atomically(str(arguments.output)) as part, open(part, "wb") as raw:
        # Without times and names: the same run gives the same bytes.
        with gzip.GzipFile("", "wb", 9, raw, mtime=0) as zipped, tarfile.open(fileobj=zipped, mode="w") as packed:
            for name, content in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                packed.addfile(member, io.BytesIO(content))
    print(f"{arguments.output}: {arguments.output.stat().st_size / 2**20:.1f} MiB")


def _shrunk(tensor: torch.Tensor, mantissa_bits: int) -> torch.Tensor:
    if tensor.dim() < 2 or not tensor.is_floating_point():
        return tensor
    mantissa, exponent = torch.frexp(tensor)
    # The mantissa is between 1/2 and 1: its first bit is not stored.
    steps = 2.0 ** (mantissa_bits + 1)
    return torch.ldexp((mantissa * steps).round() / steps, exponent).half()


def _saved(weights: Dict[str, torch.Tensor]) -> bytes:
    buffer = io.BytesIO()
    torch.save(weights, buffer)
    return buffer.getvalue()


def _without(keys: Any, value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without(keys, part) for key, part in value.items() if key not in keys}
    return value


if __name__ == "__main__":
    main()
