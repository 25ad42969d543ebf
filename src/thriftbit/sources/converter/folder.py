"""The folder that the converter sees: links to the model's files without its programs, and a configuration.

Newer releases of transformers store some settings in another place than the first published model of the family. The
converter looks in the old place, so the old names are added beside the new ones."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from thriftbit.sources.checkpoint import CONFIG, Checkpoint, is_pickle
from thriftbit.sources.json_object import read_json_object

_NEXT_TOKEN_LAYERS = ("num_nextn_predict_layers", "mtp_num_hidden_layers")
_LAYER = re.compile(r"\.layers\.(\d+)\.")
PROGRAM_SUFFIXES = (".py", ".pyc", ".so", ".pyd", ".dll", ".dylib", ".sh")


def lay_out(checkpoint: Checkpoint, target: Path, *, trust_code: bool) -> None:
    """Fill an empty folder with links to the model's files, and its configuration. trust_code: whether programs that
    the model brings are linked, too."""
    config = read_json_object(checkpoint.path / CONFIG)  # with what it says of packed weights
    for file in checkpoint.path.iterdir():
        unwanted = not trust_code and (file.name.endswith(PROGRAM_SUFFIXES) or is_pickle(file.name))
        if file.name != CONFIG and file.is_file() and not unwanted:
            _link(file.resolve(), target / file.name)
    written = dict(config) if trust_code else {key: value for key, value in config.items() if key != "auto_map"}
    written = with_older_names(written)
    if not has_next_token_layers(checkpoint):
        written = without_next_token_layers(written)
    (target / CONFIG).write_text(json.dumps(written), encoding="utf-8")


def with_older_names(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration, with the names that the converter looks for
    beside those that transformers writes today."""
    text = config.get("text_config")
    nested = {"text_config": with_older_names(text)} if isinstance(text, dict) else {}
    return {**_older_names(config), **config, **nested}


def without_next_token_layers(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration of a checkpoint that was saved without the layers that predict further tokens, as
    transformers saves it. The converter would count layers that are not there."""
    text = config.get("text_config")
    nested = {"text_config": without_next_token_layers(text)} if isinstance(text, dict) else {}
    return {**config, **dict.fromkeys(_NEXT_TOKEN_LAYERS, 0), **nested}


def has_next_token_layers(checkpoint: Checkpoint) -> bool:
    """Return whether the checkpoint has weights of layers behind those that the configuration counts, or an MTP
    part."""
    text = checkpoint.config.get("text_config")
    count = {**checkpoint.config, **(text if isinstance(text, dict) else {})}.get("num_hidden_layers")
    numbers = (_LAYER.search(name) for name in checkpoint.tensors)
    beyond = any(int(found[1]) >= count for found in numbers if found) if isinstance(count, int) else True
    return beyond or any(".mtp." in f".{name}" for name in checkpoint.tensors)


def _older_names(config: Mapping[str, Any]) -> dict[str, Any]:
    rope = config.get("rope_parameters")
    rope = rope if isinstance(rope, dict) else {}
    older: dict[str, Any] = {}
    if "rope_theta" in rope:
        older["rope_theta"] = rope["rope_theta"]
    if config.get("model_type") in ("cohere", "cohere2"):
        older["rotary_pct"] = rope.get("partial_rotary_factor", 1.0)
    heads, width = config.get("num_attention_heads"), config.get("hidden_size")
    if isinstance(heads, int) and isinstance(width, int) and heads and config.get("head_dim") is None:
        older["head_dim"] = width // heads
    head, share = config.get("head_dim"), rope.get("partial_rotary_factor")
    if isinstance(head, int) and isinstance(share, int | float):
        older["rotary_dim"] = int(head * share)
    if isinstance(kinds := config.get("mlp_layer_types"), list):
        older["num_hash_layers"] = kinds.count("hash_moe")
    return older


def _link(file: Path, target: Path) -> None:
    try:
        target.symlink_to(file)
    except OSError:  # Windows lets only some users make symbolic links
        try:
            os.link(file, target)
        except OSError:
            shutil.copyfile(file, target)
