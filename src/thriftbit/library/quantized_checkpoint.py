"""The content of folders of safetensors: originals, and models quantized by GPTQ, AWQ, bitsandbytes, FP8, MLX and
others.

config.json names the method, and the headers give the sizes. How many weights a packed tensor holds follows from its
name and type: eight 4-bit numbers in a 32-bit one, two in a byte. Scales, zero points and the like belong to the
weights and are counted into their bits. If a method packs weights in a way that is not known here, the number of
weights and the bits per weight stay unknown.

Formats: https://huggingface.co/docs/transformers/main/en/quantization/overview, compressed-tensors' README, MLX's
nn.quantize, the safetensors of the repositories themselves.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from thriftbit.library.content import IN_LAYERS, OUTSIDE, SMALL, Content, grouped
from thriftbit.library.kinds import folder_kind
from thriftbit.sources.checkpoint import CONFIG, weight_files
from thriftbit.sources.json_object import read_json_object
from thriftbit.sources.packed import find_packing
from thriftbit.sources.safetensors_file import DTYPE_BITS, read_safetensors
from thriftbit.sources.tensor import Tensor

_IN_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks?)\.\d+\.")
_OVERHEAD = re.compile(
    r"\.(?:qzeros|scales|biases|g_idx|absmax|quant_map|nested_absmax|nested_quant_map|quant_state\..*|SCB|weight_format"
    r"|weight_scale\w*|weight_zero_point|weight_shape|weight_g_idx|weight_global_scale|input_scale\w*|input_global_scale"
    r"|[kv]_scale|q_scale\w*|q_groups|q_group_map|q_invperm|q_perm|suh|svh|su|sv|mcg|mul1|codebooks)$|_scales$|scale_inv$"
)
_FLOATS = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ")
_NAMES = {
    "fp8": "FP8", "fbgemm_fp8": "FP8", "mxfp4": "MXFP4", "nvfp4": "NVFP4", "bitnet": "BitNet", "eetq": "EETQ",
    "aqlm": "AQLM", "vptq": "VPTQ", "spqr": "SpQR", "higgs": "HIGGS", "torchao": "torchao", "quip": "QuIP#",
}  # fmt: skip
_WITH_BITS = {
    "gptq": "GPTQ-Int{}", "awq": "AWQ-Int{}", "auto-round": "AutoRound-Int{}", "intel/auto-round": "AutoRound-Int{}",
    "hqq": "HQQ-{}bit", "mlx": "MLX-{}bit", "exl2": "EXL2-{}bpw", "exl3": "EXL3-{}bpw", "quanto": "quanto-int{}",
}  # fmt: skip


def checkpoint_content(folder: Path) -> Content:
    """Return the content of a folder. Raises ThriftbitError for a folder that is incomplete, forged or holds weights as
    pickle only."""
    config = read_json_object(folder / CONFIG)
    names = {entry.name for entry in folder.iterdir()}
    files = weight_files(str(folder), folder, names)
    settings = quantization_settings(config, folder)
    tensors = [tensor for name in files for tensor in read_safetensors(folder / name).values()]
    counts = [_weights(tensor, settings) for tensor in tensors]
    parameters = None if None in counts else sum(count or 0 for count in counts)
    items = (
        (tensor.source_dtype, _part(tensor), count or 0, _stored_bytes(tensor))
        for tensor, count in zip(tensors, counts, strict=True)
    )
    text = config.get("text_config")
    section: Mapping[str, Any] = text if isinstance(text, dict) else config
    context = section.get("max_position_embeddings")
    return Content(
        container="safetensors",
        kind=folder_kind(config, names),
        name=None,
        architecture=_architecture(config),
        declared=declared_precision(settings),
        groups=grouped(items),
        parameters=parameters,
        weights_bytes=sum(map(_stored_bytes, tensors)),
        context_length=context if isinstance(context, int) else None,
        parts=len(files),
    )


def quantization_settings(config: Mapping[str, Any], folder: Path | None = None) -> dict[str, Any]:
    """Return the settings of quantization, with the method under "quant_method"; {} for plain weights.

    folder: the model's, for files beside config.json."""
    packing = find_packing(config, folder)
    return {} if packing is None else {**packing.settings, "quant_method": packing.method}


def declared_precision(settings: Mapping[str, Any]) -> str | None:
    """Return the usual name of the quantization that the settings describe, "AWQ-Int4"; None for {}."""
    if not settings:
        return None
    method = str(settings.get("quant_method") or settings.get("quant_algo") or "quantized").lower()[:40]
    if method == "modelopt":
        method = str(settings.get("quant_algo", method)).lower()[:40]
    if method == "compressed-tensors":
        return _compressed(settings)
    if method == "bitsandbytes":
        return "bnb-4bit" if settings.get("load_in_4bit") else "bnb-8bit"
    bits = _stated_bits(settings)
    if method in _WITH_BITS and bits:
        return _WITH_BITS[method].format(f"{bits:g}")
    return _NAMES.get(method, method)


def _compressed(settings: Mapping[str, Any]) -> str:
    """Return the usual name of one of compressed-tensors' formats."""
    format = str(settings.get("format", ""))[:40]
    bits = _stated_bits(settings) or 4
    if "nvfp4" in format:
        return "NVFP4"
    if "mxfp4" in format:
        return "MXFP4"
    if format == "float-quantized":
        return "FP8"
    if format == "int-quantized":
        return "W8A8"
    return f"W{bits:g}A16"


def _stated_bits(settings: Mapping[str, Any]) -> float | None:
    bits = settings.get("bits", settings.get("w_bit", settings.get("nbits")))
    if isinstance(settings.get("quant_config"), dict):  # hqq
        weights = settings["quant_config"].get("weight_quant_params", {})
        bits = weights.get("nbits") if isinstance(weights, dict) else bits
    groups = settings.get("config_groups")
    if isinstance(groups, dict):  # compressed-tensors
        for group in groups.values():
            weights = group.get("weights") if isinstance(group, dict) else None
            bits = weights.get("num_bits") if isinstance(weights, dict) else bits
    return float(bits) if isinstance(bits, int | float) and not isinstance(bits, bool) and 0 < bits <= 32 else None


def _weights(tensor: Tensor, settings: Mapping[str, Any]) -> int | None:
    """Return how many weights the tensor holds: 0 for scales and the like, None if that is not known."""
    name, dtype, stored = tensor.name, tensor.source_dtype, tensor.parameters
    if not settings:
        return stored
    if _OVERHEAD.search(name):
        return 0
    if name.endswith((".qweight", ".weight_packed", "_blocks", ".W_q")) or (
        name.endswith(".weight") and dtype in ("U8", "U32")
    ):
        bits = _bits_of(name, settings, 4 if dtype == "U8" else None)
        return round(stored * DTYPE_BITS[dtype] / bits) if bits else None
    if name.endswith(".trellis") and len(tensor.shape) == 3:  # tiles of 16 × 16
        return math.prod(tensor.shape[:2]) * 256
    return stored if dtype in _FLOATS or dtype == "I8" else None


def _bits_of(name: str, settings: Mapping[str, Any], otherwise: float | None) -> float | None:
    """Return the bits of a packed weight. MLX may list other bits for some modules, by name."""
    own = settings.get(name.rpartition(".")[0])
    if isinstance(own, dict):
        return _stated_bits(own)
    return _stated_bits(settings) or otherwise


def _part(tensor: Tensor) -> str:
    if tensor.rows <= 1 or _OVERHEAD.search(tensor.name):
        return SMALL
    return IN_LAYERS if _IN_LAYER.search(tensor.name) else OUTSIDE


def _stored_bytes(tensor: Tensor) -> int:
    return math.ceil(tensor.parameters * DTYPE_BITS[tensor.source_dtype] / 8)


def _architecture(config: Mapping[str, Any]) -> str | None:
    for value in _named(config):
        if isinstance(value, str):
            return value.encode("utf-8", "replace").decode()[:200]
    return None


def _named(config: Mapping[str, Any]) -> Iterator[Any]:
    classes = config.get("architectures")
    yield classes[0] if isinstance(classes, list) and classes else None
    yield config.get("model_type")
