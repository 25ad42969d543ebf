"""What llama.cpp keeps of a text while it writes: the memory that grows with the context, and the memory that does not.

`sources/architectures/families/` says for every family which kinds of layer it has and what each kind keeps. For a
family without a table, the keys of its GGUF say most of it: latent attention, recurrent states and windows have keys of
their own. Left out: several conversations at a time, and encoders.
"""

from __future__ import annotations

from collections.abc import Sequence

import gguf

from thriftbit.containers.gguf_values import Metadata
from thriftbit.errors import ThriftbitError
from thriftbit.sources.architectures import architecture_from_gguf
from thriftbit.sources.architectures.guessed import guessed_caches
from thriftbit.sources.architectures.layer_cache import LayerCache

CACHE_TYPES = ("F32", "F16", "BF16", "Q8_0", "Q5_1", "Q5_0", "IQ4_NL", "Q4_1", "Q4_0")


def cache_bytes(
    layers: Sequence[LayerCache], context_tokens: int, key_type: str = "F16", value_type: str = "F16"
) -> int:
    """Return the bytes of all layers together. The types are from CACHE_TYPES."""
    return sum(layer.size_bytes(context_tokens, key_type, value_type) for layer in layers)


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
