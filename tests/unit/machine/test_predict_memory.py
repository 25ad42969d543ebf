"""Memory by the formulas, checked against numbers that were published or that can be worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from thriftbit.errors import ThriftbitError
from thriftbit.machine.kv_cache import cache_bytes, layer_caches
from thriftbit.sources.architectures.layer_cache import LayerCache


def keys(architecture: str, **values: object) -> dict[str, np.generic | np.ndarray[tuple[int], np.dtype[np.generic]]]:
    return {f"{architecture}.{key.replace('__', '.')}": np.uint32(value) for key, value in values.items()}  # type: ignore[call-overload]


ATTENTION = {
    "block_count": 32, "embedding_length": 4096, "attention__head_count": 32, "attention__head_count_kv": 8,
}  # fmt: skip


def test_grouped_heads_keep_a_quarter() -> None:
    layers = layer_caches("llama", keys("llama", **ATTENTION))
    assert layers == (LayerCache(1024, 1024),) * 32
    assert cache_bytes(layers, 8192) == 1 << 30  # Mistral 7B and Llama 3 8B: 1 GiB at 8k, as is known


def test_a_context_is_rounded_up_to_whole_cells() -> None:
    assert LayerCache(128, 128).size_bytes(1000) == LayerCache(128, 128).size_bytes(1024)


def test_eight_bits_are_a_little_over_half() -> None:
    layers = (LayerCache(1024, 1024),)
    assert cache_bytes(layers, 1024, "Q8_0", "Q8_0") == cache_bytes(layers, 1024) * 34 // 64


def test_a_window_stops_growing() -> None:
    layer = LayerCache(1024, 1024, window_tokens=1024)
    assert layer.cells(512) == 512
    assert layer.cells(16384) == layer.cells(131072) == 1536


@pytest.mark.parametrize(
    ("architecture", "full"),
    [("gemma2", [1, 3, 5]), ("gemma3", [5]), ("gpt-oss", [1, 3, 5]), ("cohere2", [3])],
)
def test_which_layers_look_at_everything(architecture: str, full: list[int]) -> None:
    metadata = keys(architecture, **(ATTENTION | {"block_count": 6, "attention__sliding_window": 512}))
    layers = layer_caches(architecture, metadata)
    assert layers is not None
    assert [number for number, layer in enumerate(layers) if not layer.window_tokens] == full


def test_a_window_that_llama_cpp_does_not_use() -> None:
    layers = layer_caches("phi3", keys("phi3", **(ATTENTION | {"attention__sliding_window": 2047})))
    assert layers is not None and not any(layer.window_tokens for layer in layers)


def test_a_pattern_in_the_file_decides() -> None:
    windows = {"attention__sliding_window": 512, "attention__key_length": 256, "attention__key_length_swa": 128}
    metadata = keys("gemma4", **(ATTENTION | {"block_count": 4} | windows))
    metadata["gemma4.attention.sliding_window_pattern"] = np.array([True, False, True, False])
    layers = layer_caches("gemma4", metadata)
    assert layers is not None and [layer.window_tokens for layer in layers] == [512, 0, 512, 0]


def test_latent_attention_keeps_one_vector_for_all_heads() -> None:
    latent = {"attention__kv_lora_rank": 512, "attention__key_length_mla": 192, "rope__dimension_count": 64}
    metadata = keys("deepseek2", **(ATTENTION | latent))
    assert layer_caches("deepseek2", metadata) == (LayerCache(576, 0),) * 32


def test_recurrent_layers_keep_the_same_however_long_the_text_is() -> None:
    metadata = keys(
        "mamba", block_count=2, embedding_length=768, ssm__conv_kernel=4, ssm__inner_size=1536, ssm__state_size=16
    )
    layers = layer_caches("mamba", metadata)
    assert layers == (LayerCache(state_numbers=3 * 1536 + 16 * 1536),) * 2
    assert cache_bytes(layers, 512) == cache_bytes(layers, 131072)


def test_a_hybrid_attends_where_it_has_heads() -> None:
    metadata = keys("jamba", **(ATTENTION | {"block_count": 4, "ssm__inner_size": 64, "ssm__state_size": 16}))
    metadata["jamba.attention.head_count_kv"] = np.array([0, 0, 8, 0], np.uint32)
    layers = layer_caches("jamba", metadata)
    assert layers is not None
    assert [bool(layer.key_width) for layer in layers] == [False, False, True, False]
    assert [bool(layer.state_numbers) for layer in layers] == [True, True, False, True]


def test_what_is_not_known_is_said_to_be() -> None:
    assert layer_caches("of-next-year", keys("of-next-year", **ATTENTION)) is None


@pytest.mark.parametrize("layers", [0, 1 << 31])
def test_forged_counts_are_refused(layers: int) -> None:
    with pytest.raises(ThriftbitError, match="1 to 1024 layers"):
        layer_caches("llama", keys("llama", **(ATTENTION | {"block_count": layers})))
