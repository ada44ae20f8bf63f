"""
Patches of AllenNLP 2.10.1, its last release. Importing `spigot_allennlp` applies them before the rest of the package is
imported. A patch replaces one function by one with the same signature that works on old and new versions of the
libraries alike; its docstring gives the reason.

| what is patched | file | does it change behavior that worked? |
|---|---|---|
| `ReduceOnPlateauLearningRateScheduler` | `torch` | no: it failed |
| `clip_grad_norm_`, for sparse gradients | `torch` | no: it failed |
| `TensorCache` | `torch` | no: it failed |
| `MultiProcessDataLoader`, for spawned workers | `torch` | no: it failed |
| `torch.load` of NumPy scalars | `checkpoints` | no: recovering failed |
| `Checkpointer`, `Params.to_file`, `dump_metrics` | `checkpoints` | no: the same files, each written at once |
| `MovingAverage`, recovered | `checkpoints` | no: its averages were lost |
| `diff`, for integers | `commands` | no: it failed |
| `build-vocab -o` | `commands` | no: the option had no effect |
| `predict --silent` | `commands` | yes: it logs nothing, and shows a progress bar on a terminal |
| `predict`, for input that is not UTF-8 | `commands` | no: its error names the file |
| `predict`, with predictors of this package | `commands` | yes: they read the input themselves |
| `create_kwargs` | `configs` | yes: keys that were ignored are refused |
| `train_model`, `create_serialization_dir` | `runs` | yes: a second run in the same directory is refused |
| `WandBCallback` | `libraries` | no: it failed |
| `cached_transformers.get_tokenizer` | `libraries` | no: it failed |
| `archive_model` | `archives` | no: the same file, written at once |
| `load_archive` | `archives`, `untrusted` | yes: an error names the archive; archives that could run code are refused |
| `load_archive`, for parsers that ship with the package | `archives` | no: their names failed |
| `_read_pretrained_embeddings_file` | `vectors` | no: a warning where frequent words share one vector |
| `cached_path(..., extract_archive=True)` | `extraction` | yes: links, and what is too large, are refused |

What AllenNLP needs to be imported at all comes earlier, in `spigot_allennlp_startup`. Warnings of other libraries are
silenced in `THIRD_PARTY_WARNINGS` only.
"""

from spigot_allennlp.patches import (
    archives,
    checkpoints,
    commands,
    configs,
    extraction,
    libraries,
    runs,
    torch,
    untrusted,
    vectors,
)
from spigot_allennlp.patches.torch import THIRD_PARTY_WARNINGS

__all__ = ["THIRD_PARTY_WARNINGS", "apply"]


def apply() -> None:
    """
    Apply every patch. Calling it again does nothing.
    """
    for patches in (torch, checkpoints, commands, configs, libraries, runs, extraction, untrusted, archives, vectors):
        patches.apply()
