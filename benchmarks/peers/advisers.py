"""What two well-known advisers would say of a model on a processor: their published formulas, written again.

llmfit, https://github.com/AlexsJones/llmfit, llmfit-core/src/models.rs and fit.rs at commit 3f44fd3 (August 2026):
bytes a parameter by the name of the quantization, half a gigabyte for the program, and on a processor a speed that is
a constant over the parameters, whatever its memory.

gguf-parser, https://github.com/gpustack/gguf-parser-go, file_estimate__llamacpp.go at commit 8dc7a62 (July 2026), for a
dense model that is not offloaded, without memory mapping, with flash attention and its command's default footprint:
sums over llama.cpp's buffers as they were when it was written. Its speed is an upper bound from arithmetic and
bandwidth that the user states; here those that were measured.
"""

from __future__ import annotations

from thriftbit.machine.kv_cache import cache_bytes
from thriftbit.machine.model_shape import ModelShape

_LLMFIT_BYTES = {
    "F32": 4.0, "F16": 2.0, "BF16": 2.0, "Q8_0": 1.05, "Q6_K": 0.80, "Q5_K_M": 0.68, "Q4_K_M": 0.58, "Q4_0": 0.58,
    "Q3_K_M": 0.48, "Q2_K": 0.37,
}  # fmt: skip
_LLMFIT_SPEED = {
    "F16": 0.6, "BF16": 0.6, "Q8_0": 0.8, "Q6_K": 0.95, "Q5_K_M": 1.0, "Q4_K_M": 1.15, "Q4_0": 1.15, "Q3_K_M": 1.25,
    "Q2_K": 1.35,
}  # fmt: skip
_LLMFIT_X86, _LLMFIT_CPU_ONLY, _LLMFIT_LEAST_BILLIONS = 70.0, 0.3, 0.1
_GIBIBYTE = 1 << 30


def llmfit_file_bytes(parameters: int, preset: str) -> float:
    return parameters * _LLMFIT_BYTES.get(preset, 0.58)


def llmfit_memory_bytes(parameters: int, preset: str, shape: ModelShape, context_tokens: int) -> float:
    """Weights and program in gigabytes, the cache in gibibytes: it adds the two as they are."""
    layers = shape.layers or ()
    cache = sum(2 * layer.key_width * context_tokens * 2 for layer in layers) / _GIBIBYTE
    return 1e9 * (parameters / 1e9 * _LLMFIT_BYTES.get(preset, 0.58) + cache + 0.5)


def llmfit_tokens_per_second(parameters: int, preset: str) -> float:
    """Neither the number of threads nor the memory's bandwidth is in it."""
    billions = max(parameters / 1e9, _LLMFIT_LEAST_BILLIONS)
    return max(0.1, _LLMFIT_X86 / billions * _LLMFIT_SPEED.get(preset, 1.0) * _LLMFIT_CPU_ONLY)


def gguf_parser_memory_bytes(shape: ModelShape, file_bytes: int, context_tokens: int) -> float:
    batch = min(512, context_tokens)
    cells = -(-context_tokens // 256) * 256
    tensors, layers = len(shape.entries), len(shape.layers or ())
    vocabulary = shape.tokens * (8 + 88) + shape.merges * 104
    outputs = 4 * batch * (shape.width + shape.tokens)
    footprint = (5 << 20) + (file_bytes - shape.weights_bytes) + vocabulary + outputs
    twice = next((e.size_bytes for e in shape.entries if e.name == "token_embd.weight"), 0) if shape.is_tied else 0
    cache = cache_bytes(shape.layers or (), context_tokens)
    overhead, nodes = 368, max(1024, 8 * tensors)
    graph = (4 << 20) + nodes * (overhead + 24) + 2 * overhead * (tensors + 1 + 3 * layers)
    inputs = 4 * batch * (1 + shape.width + 1 + cells + 1)
    one_layer = cache / layers if layers else 0
    output = 4 * batch * (shape.width + shape.tokens)
    return (150 << 20) + footprint + shape.weights_bytes + twice + cache + graph + inputs + one_layer + output


def gguf_parser_tokens_per_second(
    shape: ModelShape, context_tokens: int, operations_per_second: float, bytes_per_second: float
) -> float:
    layers, batches = len(shape.layers or ()), 2048 / 512
    operations = shape.parameters * 2 * batches
    weights = max(operations / operations_per_second, shape.weights_bytes / bytes_per_second)
    cache = cache_bytes(shape.layers or (), context_tokens) * batches
    numbers = cache / 2 * 2
    kept = max(numbers / operations_per_second, cache / bytes_per_second)
    return 1 / ((weights + kept) * (layers + 1) / (layers + 2))
