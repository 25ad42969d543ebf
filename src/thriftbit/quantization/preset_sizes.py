"""How many bits a weight takes in each preset, for somebody who has not chosen a model yet.

A preset's size depends a little on the model, because each kind of tensor has its own format. These sizes are exact for
the shapes of Llama 3.1 8B, and within a few percent for other models of 3 billion parameters and more. A preset that
is about experts is for gpt-oss 20B.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from thriftbit.formats import format_named
from thriftbit.quantization.presets import PRESETS, Preset, choose_formats
from thriftbit.sources.model import Model
from thriftbit.sources.tensor import FloatArray, Tensor

_WIDTH, _FFN, _VALUES, _VOCABULARY, _LAYERS = 4096, 14336, 1024, 128256, 32
_LAYER = {
    "attn_q": (_WIDTH, _WIDTH),
    "attn_k": (_VALUES, _WIDTH),
    "attn_v": (_VALUES, _WIDTH),
    "attn_output": (_WIDTH, _WIDTH),
    "ffn_gate": (_FFN, _WIDTH),
    "ffn_up": (_FFN, _WIDTH),
    "ffn_down": (_WIDTH, _FFN),
}


def describe_presets() -> str:
    """Return a line for every preset: its name, gigabytes per billion parameters, and who it is for."""
    return "\n".join(
        f"  {preset.name:<10}{typical_bits_per_weight(preset) / 8:5.2f}  {preset.summary}"
        for preset in PRESETS.values()
    )


def markdown_rows() -> list[str]:
    """Return the presets as rows of the table in docs/formats.md."""
    return [
        f"| {preset.name} | {typical_bits_per_weight(preset):.2f} | {preset.most} | "
        f"{'yes' if preset.wants_importance else ''} | {preset.summary} |"
        for preset in PRESETS.values()
    ]


@cache
def typical_bits_per_weight(preset: Preset) -> float:
    model = _mixture() if any(rule.stacked for rule in preset.rules) else _typical_model()
    formats = choose_formats(model, preset, importance=preset.wants_importance)
    size_bytes = sum(
        tensor.rows * format_named(formats[tensor.name]).row_bytes(tensor.width) for tensor in model.tensors
    )
    return 8 * size_bytes / sum(tensor.parameters for tensor in model.tensors)


def _no_weights(start: int, stop: int) -> FloatArray:
    raise AssertionError("only the shapes are of interest here")


def _mixture() -> Model:
    layer: dict[str, tuple[int, ...]] = {
        "attn_q": (4096, 2880),
        "attn_k": (512, 2880),
        "attn_v": (512, 2880),
        "attn_output": (2880, 4096),
    }
    layer |= {f"ffn_{name}_exps": (32, 2880, 2880) for name in ("gate", "up", "down")}
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (201088, 2880), "output.weight": (201088, 2880)}
    shapes |= {f"blk.{number}.{name}.weight": shape for number in range(24) for name, shape in layer.items()}
    metadata = {"gpt-oss.block_count": np.uint32(24), "gpt-oss.expert_count": np.uint32(32)}
    tensors = tuple(Tensor(name, shape, "BF16", _no_weights) for name, shape in shapes.items())
    return Model("gpt-oss", metadata, tensors, "gpt-oss 20B")


def _typical_model() -> Model:
    shapes = {"token_embd.weight": (_VOCABULARY, _WIDTH), "output.weight": (_VOCABULARY, _WIDTH)}
    shapes |= {f"blk.{layer}.{name}.weight": shape for layer in range(_LAYERS) for name, shape in _LAYER.items()}
    metadata = {
        "llama.block_count": np.uint32(_LAYERS),
        "llama.attention.head_count": np.uint32(32),
        "llama.attention.head_count_kv": np.uint32(8),
    }
    tensors = tuple(Tensor(name, shape, "BF16", _no_weights) for name, shape in shapes.items())
    return Model("llama", metadata, tensors, "Llama 3.1 8B")
