"""What the layers of a model without a table keep of a text, derived from its GGUF keys.

llama.cpp has keys for every kind of cache: a latent rank, a convolution and the size of a state, a window and the
layers that use it. If heads are counted layer by layer, a layer with none is recurrent. For some families, llama.cpp
has built in which layers use the window. Without a list of them, all layers are assumed to use the whole text, so the
estimate is never too small."""

from __future__ import annotations

import numpy as np

from thriftbit.containers.gguf_values import Metadata
from thriftbit.errors import ThriftbitError
from thriftbit.sources.architectures import layer_cache
from thriftbit.sources.architectures.dimensions import MOST_LAYERS, Dimensions
from thriftbit.sources.architectures.layer_cache import Keeps, LayerCache, both, windowed


def guessed_caches(architecture: str, metadata: Metadata) -> tuple[LayerCache, ...]:
    """Return what each layer keeps. Raises ThriftbitError for metadata that lack keys of every model."""
    model = Dimensions(architecture, metadata)
    if model.all_layers > MOST_LAYERS:
        raise ThriftbitError(f"{architecture}.block_count is {model.all_layers}; models have 1 to {MOST_LAYERS} layers")
    return tuple(_keeps(model.at(layer))(model.at(layer)) for layer in range(model.layers))


def _keeps(model: Dimensions) -> Keeps:
    recurrent = _recurrent(model)
    attends = model.number("attention.head_count_kv", model.number("attention.head_count", 0, least=0), least=0) > 0
    if recurrent is not None and _is_recurrent(model, attends):
        return both(recurrent, _attention(model)) if attends and not model.has("full_attention_interval") else recurrent
    return _attention(model) if attends else both()


def _attention(model: Dimensions) -> Keeps:
    latent = model.number("attention.kv_lora_rank", 0, least=0) and model.has("attention.key_length_mla")
    keeps = layer_cache.latent_cache if latent else layer_cache.attention_cache
    return windowed(keeps) if model.flag("attention.sliding_window_pattern") else keeps


def _recurrent(model: Dimensions) -> Keeps | None:
    for key, keeps in (
        ("wkv.head_size", layer_cache.rwkv_cache),
        ("shortconv.l_cache", layer_cache.short_convolution_cache),
        ("kda.head_dim", layer_cache.kimi_delta_cache),
        ("ssm.inner_size", layer_cache.state_space_cache),
    ):
        if model.has(key):
            return keeps
    return None


def _is_recurrent(model: Dimensions, attends: bool) -> bool:
    """Return whether this layer has a recurrent state, in a model with some recurrent layers."""
    if model.has("full_attention_interval"):
        return (model.layer or 0) % model.number("full_attention_interval") != model.number(
            "full_attention_interval"
        ) - 1
    listed = isinstance(model.metadata.get(f"{model.architecture}.attention.head_count_kv"), np.ndarray)
    if not listed:
        return True
    feeds_forward = isinstance(model.metadata.get(f"{model.architecture}.feed_forward_length"), np.ndarray)
    return not attends and not (feeds_forward and model.number("feed_forward_length", 0, least=0))
