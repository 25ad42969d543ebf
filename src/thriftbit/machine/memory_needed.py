"""How much memory a model takes while it runs: weights, what is kept of the text, room to compute, and the rest.

This follows llama.cpp's own arithmetic where it can be followed, and measurements where it cannot. Weights are mapped
from the file. Some formats are also copied into another order for the processor's instructions; the mapped originals of
those stay in memory until another program needs the room. So there are two sums. "Resident" is everything, which a task
manager shows. "Lasting" is what the model needs to run well.

Left out: several conversations at a time, adapters, image towers, and what other programs add to llama.cpp (Ollama, for
one, keeps several contexts).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from thriftbit.containers.entry import Entry
from thriftbit.containers.gguf_values import padded
from thriftbit.formats import format_named
from thriftbit.machine.kv_cache import cache_bytes
from thriftbit.machine.model_shape import ModelShape
from thriftbit.machine.prediction import Prediction, unknown
from thriftbit.sources.architectures.layer_cache import BATCH_TOKENS, CELL_PADDING, LayerCache

# format -> instruction sets (all of one tuple) with which llama.cpp copies its matrices into an order of its own, and
# how many rows have to divide. Source: ggml/src/ggml-cpu/repack.cpp, ggml_repack_get_optimal_repack_type. The wheels of
# xllamacpp for x86 use AVX2 and no AVX-512.
_REPACKED: dict[str, tuple[tuple[tuple[str, ...], int], ...]] = {
    "Q4_0": ((("AVX2",), 8), (("NEON", "I8MM"), 4), (("NEON", "DOTPROD"), 4)),
    "Q4_K": ((("AVX2",), 8), (("NEON", "I8MM"), 8), (("NEON", "DOTPROD"), 8)),
    "Q5_K": ((("NEON", "I8MM"), 8), (("NEON", "DOTPROD"), 8)),
    "Q6_K": ((("NEON", "I8MM"), 8), (("NEON", "DOTPROD"), 8)),
    "IQ4_NL": ((("AVX2",), 8), (("NEON",), 4)),
    "MXFP4": ((("AVX2",), 8), (("NEON", "DOTPROD"), 4)),
    "Q8_0": ((("NEON", "I8MM"), 4), (("NEON", "DOTPROD"), 4)),
}
_LOOKED_UP = ("token_embd.weight", "position_embd.weight", "per_layer_token_embd.weight")

# Room to compute, in 32-bit numbers for each token of a batch: measured as llama.cpp plans its graphs (see
# tests/conformance/test_memory.py) for dense models, mixtures, and windows.
_OF_WIDTH, _OF_FFN, _OF_EXPERT_FFN, _OF_EXPERT_WIDTH = 5, 3, 3, 1
_OF_RECURRENT = 5  # of what a recurrent layer convolves; a rough number
_MASK_BYTES = 2
_F16_BYTES = 2
_VALUE_ROTATION = 64  # numbers that are rotated together; of keys a whole head, if 64 divides it
_FIXED_COMPUTE_BYTES = 20 << 10

# The program itself: Python, llama.cpp's libraries, its threads; and its table of tokens and merges. Measured.
PROGRAM_BYTES = 55 << 20
_VOCABULARY_FIXED_BYTES = 10_000_000
_BYTES_PER_PIECE = 214

_UNSURE = 0.05  # of everything but the weights and the cache, which are counted
_UNSURE_COMPUTE = 0.5  # of the room to compute of recurrent layers, which is not modelled


@dataclass(frozen=True)
class MemoryNeeded:
    """All in bytes. weights: as mapped from the file, and read. copied: those in memory a second time, in another
    order. cache: of the text. compute: room for one batch. other: the program and its vocabulary. resident: everything
    that the system counts. lasting: resident without what the system can take back. gpu_scratch: beside `compute`, if
    it runs on a GPU."""

    weights: int
    copied: int
    cache: int | None
    compute: int
    other: int
    resident: Prediction
    lasting: Prediction
    gpu_scratch: int = 0


def memory_needed(
    shape: ModelShape,
    context_tokens: int,
    *,
    key_type: str = "F16",
    value_type: str = "F16",
    instruction_sets: Collection[str] = (),
    program_bytes: int = PROGRAM_BYTES,
) -> MemoryNeeded:
    """Return what the model takes to run on the processor, with that much context.

    key_type, value_type: of what is kept of the text. instruction_sets: as `Processor` has them. program_bytes: of the
    engine's process before it loads anything.
    """
    weights, copied = shape.weights_bytes - shape.idle_bytes, repacked_bytes(shape.entries, instruction_sets)
    compute = compute_bytes(shape, context_tokens) + rotation_bytes(shape, key_type, value_type)
    vocabulary = _VOCABULARY_FIXED_BYTES + _BYTES_PER_PIECE * (shape.tokens + (shape.merges or shape.tokens))
    other = program_bytes + vocabulary
    if shape.layers is None:
        reason = "how this family keeps the text is not known"
        return MemoryNeeded(weights, copied, None, compute, other, unknown(reason), unknown(reason))
    cache = cache_bytes(shape.layers, context_tokens, key_type, value_type)
    unsure = _UNSURE * (compute + other)
    if any(layer.state_numbers for layer in shape.layers):
        unsure += _UNSURE_COMPUTE * compute
    if not instruction_sets:
        unsure += copied
    known = cache + compute + other
    reason = "counted: weights, cache and room to compute as llama.cpp allocates them"
    resident = weights + copied + known
    lasting = weights + known
    return MemoryNeeded(
        weights,
        copied,
        cache,
        compute,
        other,
        Prediction(resident, resident - unsure, resident + unsure, reason),
        Prediction(lasting, lasting - unsure, lasting + unsure, reason),
        unpacked_layer_bytes(shape.layers, context_tokens, key_type, value_type),
    )


def rotation_bytes(shape: ModelShape, key_type: str, value_type: str) -> int:
    """Return the matrices with which llama.cpp rotates keys and values before it quantizes them, so that no number
    stands out. Source: src/llama-kv-cache.cpp."""
    keys = sum(_rotation(width, width) for width in shape.key_heads) if is_quantized(key_type) else 0
    values = sum(_rotation(width, _VALUE_ROTATION) for width in shape.value_heads) if is_quantized(value_type) else 0
    return keys + values


def unpacked_layer_bytes(layers: Sequence[LayerCache], context_tokens: int, key_type: str, value_type: str) -> int:
    """Return what a GPU takes to read a quantized cache: keys and values of one layer as F16, for every batch. Source:
    ggml/src/ggml-cuda/fattn-common.cuh. (A processor reads them as they are.)"""
    keys, values = is_quantized(key_type), is_quantized(value_type)
    return max(
        (
            _F16_BYTES * layer.cells(context_tokens) * (keys * layer.key_width + values * layer.value_width)
            for layer in layers
        ),
        default=0,
    )


def is_quantized(cache_type: str) -> bool:
    return format_named(cache_type).block_size > 1


def _rotation(head: int, side: int) -> int:
    return 4 * side * side if head % _VALUE_ROTATION == 0 else 0


def repacked_bytes(entries: Sequence[Entry], instruction_sets: Collection[str]) -> int:
    """Return the bytes of the matrices that llama.cpp copies into another order on a processor with these instruction
    sets."""
    available = set(instruction_sets)
    total = 0
    for entry in entries:
        rows = next((n for needed, n in _REPACKED.get(entry.format.name, ()) if available.issuperset(needed)), 0)
        if rows and len(entry.shape) > 1 and entry.name not in _LOOKED_UP and entry.shape[-2] % rows == 0:
            total += entry.size_bytes
    return total


def compute_bytes(shape: ModelShape, context_tokens: int) -> int:
    """Return the room that llama.cpp plans for the largest batch."""
    batch = min(BATCH_TOKENS, context_tokens)
    dense = _OF_FFN * shape.ffn
    experts = shape.experts_used * (_OF_EXPERT_FFN * shape.expert_ffn + _OF_EXPERT_WIDTH * shape.width)
    masks = sum(batch * cells * _MASK_BYTES for cells in _mask_cells(shape.layers or (), context_tokens))
    inner = max(dense, experts, 2 * shape.query, _OF_RECURRENT * shape.convolved)
    numbers = _OF_WIDTH * shape.width + shape.per_layer + inner
    return 4 * batch * numbers + masks + 4 * shape.tokens + _FIXED_COMPUTE_BYTES


def _mask_cells(layers: Sequence[LayerCache], context_tokens: int) -> list[int]:
    """Return the tokens for which masks are kept: one mask for the whole text, one for a window."""
    whole = any(layer.key_width and not layer.window_tokens for layer in layers)
    windows = {layer.cells(context_tokens) for layer in layers if layer.window_tokens}
    return ([padded(context_tokens, CELL_PADDING)] if whole or not layers else []) + sorted(windows)
