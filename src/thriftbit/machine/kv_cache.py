"""What llama.cpp keeps of a text while it writes: the memory that grows with the context, and the memory that does not.

`sources/architectures/families/` says for every family which kinds of layer it has and what each kind keeps. For a
family without a table, the keys of its GGUF say most of it: latent attention, recurrent states and windows have keys of
their own. Left out: several conversations at a time, and encoders.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import gguf

from thriftbit.containers.gguf_values import Metadata
from thriftbit.errors import ThriftbitError
from thriftbit.formats import format_named
from thriftbit.sources.architectures import architecture_from_gguf
from thriftbit.sources.architectures.guessed import guessed_caches
from thriftbit.sources.architectures.layer_cache import LayerCache

if TYPE_CHECKING:  # a shape is made with the caches that are found here
    from thriftbit.machine.model_shape import ModelShape

CACHE_TYPES = ("F32", "F16", "BF16", "Q8_0", "Q5_1", "Q5_0", "IQ4_NL", "Q4_1", "Q4_0")


def cache_bytes(
    layers: Sequence[LayerCache], context_tokens: int, key_type: str = "F16", value_type: str = "F16"
) -> int:
    """Return the bytes of all layers together. The types are from CACHE_TYPES."""
    return sum(layer.size_bytes(context_tokens, key_type, value_type) for layer in layers)


def cache_type_problem(shape: ModelShape, key_type: str, value_type: str) -> str:
    """Return why llama.cpp does not keep this model's text in these types, as the end of a sentence; "" if it does.
    Source: src/llama-context.cpp, llama_init_from_model."""
    if all(not layer.key_width for layer in shape.layers or ()):
        return ""  # nothing but states, which have a type of their own
    if shape.is_latent and key_type != value_type:
        return "keys and values are kept as one, so both take the same type"
    for what, type_name, heads in (("keys", key_type, shape.key_heads), ("values", value_type, shape.value_heads)):
        block = format_named(type_name).block_size
        if block > 1 and what == "values" and not shape.has_flash_attention:
            return "llama.cpp runs this family without flash attention, which quantized values need"
        uneven = [head for head in heads if head % block]
        if uneven:
            return f"{type_name} stores {block} numbers together, and a head's {what} are {uneven[0]}"
    return ""


def layer_caches(architecture: str, metadata: Metadata) -> tuple[LayerCache, ...] | None:
    """Return what each layer keeps; None for a family that this version of llama.cpp does not run, as far as is known
    here.

    architecture, metadata: as a GGUF has them. Raises ThriftbitError for metadata that lacks what every model has.
    """
    try:
        known = architecture_from_gguf(architecture, metadata)
    except ThriftbitError:
        return guessed_caches(architecture, metadata) if architecture in set(gguf.MODEL_ARCH_NAMES.values()) else None
    return known.layer_caches(metadata)
