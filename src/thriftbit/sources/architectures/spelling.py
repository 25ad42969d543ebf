"""The names of tensors in checkpoints, and the way from them to the names in transformers' code.

The same weights come under several names. Multimodal models have their text part under a prefix, and parts for pictures
and sound beside it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

# Beginning of a name -> its beginning in transformers' text models. The first that fits is taken.
PREFIXES = {
    "model.mtp.": "mtp.",
    "model.language_model.": "model.",
    "language_model.model.": "model.",
    "language_model.lm_head.": "lm_head.",
    "language_model.": "model.",
}

# Buffers that older releases of transformers stored beside the weights. They follow from the configuration.
BUFFERS = (r"\.rotary_emb\.inv_freq$", r"\.masked_bias$")

# Part beside the text -> beginnings of its names, perhaps after "model."
OTHER_PARTS = {
    "pictures": (
        "visual",
        "vision_tower",
        "vision_model",
        "vision_embedder",
        "multi_modal_projector",
        "embed_vision",
        "vision_adapter",
        "patch_merge_mlp",
    ),
    "sound": ("audio_tower", "embed_audio", "audio_model", "audio_projector"),
}
_OTHER = {part: re.compile(rf"^(model\.)?({'|'.join(beginnings)})[._]") for part, beginnings in OTHER_PARTS.items()}


def text_name(name: str, prefixes: Mapping[str, str]) -> str:
    """Return the tensor's name in transformers' text model. prefixes: the family's, which are tried first."""
    for prefix, replacement in {**prefixes, **PREFIXES}.items():
        if name.startswith(prefix):
            return replacement + name.removeprefix(prefix)
    return name


def other_part(name: str) -> str:
    """Return the part of a multimodal model that the tensor belongs to; "" if it is the text."""
    return next((part for part, pattern in _OTHER.items() if pattern.match(name)), "")


def other_parts(names: Iterable[str]) -> list[str]:
    """Return the parts beside the text that any of the tensors belongs to."""
    found = {other_part(name) for name in names}
    return [part for part in OTHER_PARTS if part in found]
