"""
Archives of models from before the first release: their config has other keys, and their parameters have other names.
This is the only place that knows them.
"""

import os
import re
from typing import Any, Dict, Mapping, Optional, Tuple

import torch
from allennlp.common import Params
from allennlp.models import Model

# By the type of a model: the sub-object that a key went into, and its name there.
_MOVED: Dict[str, Dict[str, Tuple[str, str]]] = {
    "syntactic_parser": {key: ("syntactic_head", key) for key in ("arc_scorer", "loss", "pruner", "label_dim")},
    "syntactic_then_semantic": {
        "arc_scorer": ("syntactic_head", "arc_scorer"),
        "syntactic_loss": ("syntactic_head", "loss"),
        "syntactic_pruner": ("syntactic_head", "pruner"),
        "graph_arc_scorer": ("graph_head", "arc_scorer"),
        "graph_loss": ("graph_head", "loss"),
        "graph_pruner": ("graph_head", "pruner"),
        "label_dim": ("graph_head", "label_dim"),
        "predicate_dim": ("graph_head", "predicate_dim"),
        "deterministic_roles": ("graph_head", "deterministic_roles"),
    },
}
_RENAMED = {"syntactic_then_semantic": {"frozen_syntax": "frozen_parser"}}
# The key whose value was 'predicted'.
_LATENT = {"syntactic_then_semantic": "syntax", "latent_cluster_classifier": "cluster"}

# Names of parameters, at any depth: the name of a model's part follows the beginning or a dot.
_PARAMETERS = (
    (re.compile(r"(?<![^.])parser_head\."), "syntactic_head."),
    (re.compile(r"(?<![^.])head\.(arc_scorer|labeler|pruner)\."), r"syntactic_head.\1."),
    (re.compile(r"(?<![^.])graph_(arc_scorer|labeler|pruner)\."), r"graph_head.\1."),
    (re.compile(r"(?<![^.])(?<!graph_head\.)(predicate_scorer|deterministic_roles)\."), r"graph_head.\1."),
)


class LoadsOldArchives(Model):
    """
    A model whose old archives, and old checkpoints, can still be loaded.
    """

    @classmethod
    def _load(cls, config: Params, serialization_dir: Any, *args: Any, **kwargs: Any) -> Model:
        # A string would be a registered name, and a model without keys.
        if isinstance(config.params["model"], dict):
            config.params["model"] = upgraded_config(config.params["model"], serialization_dir)
        return super()._load(config, serialization_dir, *args, **kwargs)

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        return super().load_state_dict(upgraded_state_dict(state_dict), *args, **kwargs)


def upgraded_config(config: Dict[str, Any], serialization_dir: Any, prefix: str = "") -> Dict[str, Any]:
    """
    # Parameters

    config : `Dict[str, Any]`
        The `model` of an archive's config, or a part of it.
    serialization_dir : `Union[str, os.PathLike]`
        The directory that the archive was unpacked into. It may hold the archives of pre-trained parts, each under the
        key that the part had.
    prefix : `str`, optional (default = `""`)
        Keys that lead to `config`.

    # Returns

    `Dict[str, Any]`
        The same with the keys of today.
    """
    kind: Optional[str] = config.get("type")
    moved = _MOVED.get(kind, {})
    upgraded: Dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict):
            value = upgraded_config(value, serialization_dir, f"{prefix}{key}.")
            archive = os.path.join(str(serialization_dir), f"{prefix}{key}.model.tar.gz")
            if key in moved and moved[key][1] == "pruner" and os.path.exists(archive):
                value["model"]["archive_file"] = archive
        if key in moved:
            head, name = moved[key]
            # Overrides of an old config have new keys.
            upgraded[head] = {name: value, **upgraded.get(head, {})}
        elif key in ("syntactic_head", "graph_head"):
            upgraded[key] = {**upgraded.get(key, {}), **value}
        else:
            upgraded[_RENAMED.get(kind, {}).get(key, key)] = value
    if kind in _LATENT and upgraded.get(_LATENT[kind]) == "predicted":
        upgraded[_LATENT[kind]] = "latent"
    if kind == "syntactic_then_semantic" and set(upgraded.get("syntactic_head", ())) == {"arc_scorer"}:
        # Elsewhere this key had no effect, and today there is no such head.
        if upgraded.get("syntactic_parser") is not None or upgraded.get("syntax", "latent") != "latent":
            del upgraded["syntactic_head"]
    return upgraded


def upgraded_state_dict(state_dict: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
    """
    The same parameters under the names of today. Where all have those, it is `state_dict` itself.
    """
    upgraded = {}
    for name, parameter in state_dict.items():
        for pattern, replacement in _PARAMETERS:
            name = pattern.sub(replacement, name)
        upgraded[name] = parameter
    # With what torch attaches to it.
    return state_dict if upgraded.keys() == state_dict.keys() else upgraded
