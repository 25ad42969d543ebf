"""Models that were small before anybody quantized them, told by what they say of themselves.

Some models are trained in few bits, or trained to bear them (quantization-aware): rounding those again to another
grid loses what the training won. Others were published quantized after training; there the original is the better
source. `config.json` says which (`quantization_config`), the types of a GGUF's tensors do, and quantization-aware
checkpoints at least say so in their names.

Sources: the configurations of transformers (https://huggingface.co/docs/transformers/main/en/quantization/overview),
NVIDIA ModelOpt's hf_quant_config.json, and llama.cpp's file types.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from thriftbit.sources.tensor import Tensor

# quant_method -> formats that llama.cpp has for just these values, the first offered; and whether it was trained so
_METHODS: dict[str, tuple[str, str, bool]] = {
    "mxfp4": ("MXFP4", "MXFP4", True),
    "nvfp4": ("NVFP4", "NVFP4", True),
    "fp8": ("FP8", "Q8_0", True),
    "fbgemm_fp8": ("FP8", "Q8_0", False),
    "bitnet": ("ternary weights (BitNet)", "TQ2_0", True),
    "gptq": ("GPTQ", "", False),
    "awq": ("AWQ", "", False),
    "bitsandbytes": ("bitsandbytes", "", False),
    "hqq": ("HQQ", "", False),
    "aqlm": ("AQLM", "", False),
    "exl2": ("EXL2", "", False),
    "exl3": ("EXL3", "", False),
    "auto-round": ("AutoRound", "", False),
    "torchao": ("torchao", "", False),
    "quark": ("Quark", "", False),
    "mlx": ("MLX", "", False),
}
_GGML_TYPES = {"MXFP4": "mxfp4", "NVFP4": "nvfp4", "TQ1_0": "bitnet", "TQ2_0": "bitnet", "I2_S": "bitnet"}
_QAT = re.compile(r"(?:^|[-_./ ])qat(?:$|[-_./ ])", re.IGNORECASE)
_QAT_FORMAT = re.compile(r"\b(q4_0|q4_k_m|q8_0|int4)\b", re.IGNORECASE)


@dataclass(frozen=True)
class BornSmall:
    """kind: in words ("MXFP4"). format: the GGML format that holds it as it is; "" where llama.cpp has none.
    trained: whether it was trained in it, or for it; False for a model that was quantized afterwards."""

    kind: str
    format: str
    trained: bool

    @property
    def advice(self) -> str:
        """-> two sentences: why not to quantize it again, and what to do instead"""
        if not self.trained:
            return (
                f"These weights were quantized already ({self.kind}); quantizing them again adds a second loss to the "
                "first. Take the original model in 16 bits."
            )
        keeps = f" {self.format} keeps it as it is." if self.format else ""
        return f"This model was made in few bits ({self.kind}); any other format of its size would only lose.{keeps}"


def born_small(config: Mapping[str, Any], tensors: Iterable[Tensor] = (), name: str = "") -> BornSmall | None:
    """config: config.json, {} without one. tensors: of a GGUF. name: the model's, for checkpoints that only their names
    tell from others. -> None for a model in full precision"""
    quantization = _settings(config)
    if quantization:
        return _by_method(_method(quantization))
    parameters = Counter[str]()
    for tensor in tensors:
        parameters[tensor.source_dtype] += tensor.parameters
    if parameters:
        most = parameters.most_common(1)[0][0]
        if most in _GGML_TYPES:
            return BornSmall(_METHODS[_GGML_TYPES[most]][0], most, True)
    if _QAT.search(name):
        stated = _QAT_FORMAT.search(name.replace("-", " "))
        format = stated[1].upper().replace("INT4", "Q4_0") if stated else "Q4_0"
        return BornSmall(f"quantization-aware training for {format}", format, True)
    if config.get("model_type") == "bitnet":
        return _by_method("bitnet")
    return None


def without_quantization(config: Mapping[str, Any]) -> dict[str, Any]:
    """-> the configuration of the same model in full precision"""
    plain = {key: value for key, value in config.items() if key not in _KEYS}
    text = plain.get("text_config")
    return {**plain, "text_config": without_quantization(text)} if isinstance(text, dict) else plain


_KEYS = ("quantization_config", "compression_config", "quantization")


def _settings(config: Mapping[str, Any]) -> Mapping[str, Any]:
    text = config.get("text_config")
    for section in (config, text if isinstance(text, Mapping) else {}):
        for key in _KEYS:
            found = section.get(key)
            if isinstance(found, Mapping) and found and not _is_idle(found):
                return {"quant_method": "mlx", **found} if key == "quantization" else found
    return {}


def _is_idle(quantization: Mapping[str, Any]) -> bool:
    """bitsandbytes leaves its settings behind in models whose weights it did not touch"""
    idle = not (quantization.get("load_in_4bit") or quantization.get("load_in_8bit"))
    return quantization.get("quant_method") == "bitsandbytes" and idle


def _method(quantization: Mapping[str, Any]) -> str:
    """-> a key of the table where it is known; else what the configuration says"""
    method = str(quantization.get("quant_method", "quantized")).lower()
    algorithm = str(quantization.get("quant_algo", "")).lower()
    if method == "modelopt" or algorithm:
        return algorithm or method
    if method == "compressed-tensors":
        return _compressed_tensors(quantization)
    return method


def _compressed_tensors(quantization: Mapping[str, Any]) -> str:
    format = str(quantization.get("format", ""))
    if "nvfp4" in format:
        return "nvfp4"
    if "mxfp4" in format:
        return "mxfp4"
    return "fp8" if format == "float-quantized" else f"compressed-tensors {format}".strip()


def _by_method(method: str) -> BornSmall:
    kind, format, trained = _METHODS.get(method, (method, "", False))
    return BornSmall(kind, format, trained)
