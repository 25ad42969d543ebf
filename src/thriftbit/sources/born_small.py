"""Models whose weights take few bits before anybody quantizes them here.

Three questions matter to whoever wants a GGUF of one. Was it trained in few bits, so that there is no original in 16
bits to prefer? Does GGUF have a format for the very same values? And if not, how close does one come? `config.json` and
the files beside it say how the weights are packed, the types of a GGUF's tensors do, and checkpoints that were trained
for a format (quantization-aware) at least say so in their names. No file says which families were trained in few
bits, so that is a table here, from what their makers published.

Sources: model cards and reports of gpt-oss (MXFP4), DeepSeek V3, R1 and later (FP8), Kimi K2 (FP8) and K2 Thinking
(INT4), MiniMax M2 (FP8), BitNet b1.58; and for GGUF files llama.cpp's types.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thriftbit.sources.packed import Packing, find_packing
from thriftbit.sources.tensor import Tensor

MXFP4, NVFP4, FP8, BITNET, INT4 = "MXFP4", "NVFP4", "FP8", "ternary weights (BitNet)", "INT4"

# model_type -> the kinds that the makers trained it in; they published no version in more bits
_TRAINED = {
    "gpt_oss": {MXFP4},
    "deepseek_v3": {FP8},
    "deepseek_v32": {FP8},
    "deepseek_v4": {FP8},
    "kimi_k2": {FP8, INT4},
    "kimi_k25": {INT4},
    "minimax_m2": {FP8},
    "bitnet": {BITNET},
}
_KINDS = {
    "mxfp4": MXFP4, "nvfp4": NVFP4, "fp8": FP8, "fbgemm_fp8": FP8, "bitnet": BITNET, "gptq": "GPTQ", "awq": "AWQ",
    "bitsandbytes": "bitsandbytes", "hqq": "HQQ", "aqlm": "AQLM", "exl2": "EXL2", "exl3": "EXL3",
    "auto-round": "AutoRound", "torchao": "torchao", "quark": "Quark", "mlx": "MLX",
}  # fmt: skip
_GGML_TYPES = {"MXFP4": MXFP4, "NVFP4": NVFP4, "TQ1_0": BITNET, "TQ2_0": BITNET, "I2_S": BITNET}
_QAT = re.compile(r"(?:^|[-_./ ])qat(?:$|[-_./ ])", re.IGNORECASE)
_QAT_FORMAT = re.compile(r"\b(q4_0|q4_k_m|q8_0|int4)\b", re.IGNORECASE)
_BLOCK = 32  # columns that share a scale in GGML's formats

# The error of each against FP8 weights with scales, relative to the weights (docs/lab-notes.md)
_CLOSE_TO_FP8 = "GGUF has no such format. BF16 comes within 0.2% of the weights, Q8_0 within 0.7%"


@dataclass(frozen=True)
class BornSmall:
    """kind: in words ("MXFP4"). format: the GGML format that holds the very same values, "" if there is none; only the
    description was read, so some scales may turn out not to fit. trained: whether the model was trained in this kind or
    for it; False for a model that was quantized afterwards. packed: whether the weights are stored in few bits."""

    kind: str
    format: str
    trained: bool
    packed: bool = True

    @property
    def advice(self) -> str:
        """Two or three sentences: what the source is, what is lost by quantizing it, and what to do instead."""
        if self.trained:
            if not self.packed:
                return f"This model was trained for {self.format} and loses least in that format."
            what = f"This model was trained in {self.kind}, and there is no original in 16 bits."
            if self.format:
                return f"{what} {self.format} keeps its weights as they are (--to same); other quantizations lose more."
            return f"{what} {_CLOSE_TO_FP8}." if self.kind == FP8 else f"{what} Larger formats lose less."
        what = f"These weights were quantized before ({self.kind}) and have lost something already."
        kept = f" {self.format} may keep them as they are (--to same)." if self.format else ""
        if self.kind == FP8:
            kept = f" {_CLOSE_TO_FP8}."
        return f"{what}{kept} A file made from the original in 16 bits loses less, if there is one."


def born_small(
    config: Mapping[str, Any],
    tensors: Iterable[Tensor] = (),
    name: str = "",
    folder: Path | None = None,
    architecture: str = "",
) -> BornSmall | None:
    """config: config.json, {} without one. tensors, architecture: of a GGUF. name: the model's, because only the name
    tells some checkpoints from others. folder: the model's, for files beside config.json.

    Returns None for a model in full precision."""
    packing = find_packing(config, folder)
    if packing is not None:
        return born_packed(packing, config)
    parameters = Counter[str]()
    for tensor in tensors:
        parameters[tensor.source_dtype] += tensor.parameters
    if parameters:
        most = parameters.most_common(1)[0][0]
        if most in _GGML_TYPES:
            kind = _GGML_TYPES[most]
            return BornSmall(kind, most, kind == BITNET or kind in _TRAINED.get(architecture.replace("-", "_"), ()))
    if _QAT.search(name):
        stated = _QAT_FORMAT.search(name.replace("-", " "))
        format = stated[1].upper().replace("INT4", "Q4_0") if stated else "Q4_0"
        return BornSmall(f"quantization-aware training for {format}", format, trained=True, packed=False)
    if _model_type(config) == "bitnet":
        return BornSmall(BITNET, "TQ2_0", trained=True, packed=False)
    return None


def kind_of(packing: Packing) -> str:
    """Return how the weights are packed, in words ("MXFP4", "INT4 (compressed-tensors)")."""
    if packing.method == "modelopt" or packing.settings.get("quant_algo"):
        algorithm = packing.format.upper()
        return NVFP4 if "NVFP4" in algorithm else FP8 if "FP8" in algorithm else algorithm or "ModelOpt"
    if packing.method == "compressed-tensors":
        for part, kind in (("nvfp4", NVFP4), ("mxfp4", MXFP4), ("float-quantized", FP8)):
            if part in packing.format:
                return kind
        bits = _of_weights(packing).get("num_bits")
        return f"INT{bits}" if isinstance(bits, int) else "compressed-tensors"
    return _KINDS.get(packing.method, packing.method)


def born_packed(packing: Packing, config: Mapping[str, Any]) -> BornSmall:
    """config: config.json, with or without its section about packing."""
    kind = kind_of(packing)
    return BornSmall(kind, _same_format(packing, kind), kind in _TRAINED.get(_model_type(config), ()))


def _same_format(packing: Packing, kind: str) -> str:
    """Return the GGML format that holds the same values, judged by the settings that all modules share; "" if none."""
    settings = _of_weights(packing)
    bits, group = settings.get("bits", settings.get("num_bits")), settings.get("group_size")
    if kind in (MXFP4, NVFP4):
        return kind
    if kind == BITNET:
        return "TQ2_0" if settings.get("linear_class") == "autobitlinear" else ""
    if not isinstance(bits, int) or not isinstance(group, int) or group <= 0 or group % _BLOCK:
        return ""
    if packing.method == "mlx":
        return "Q4_1" if bits <= 4 else ""
    symmetric = settings.get("sym", settings.get("symmetric", packing.method == "compressed-tensors")) is True
    if not symmetric or settings.get("desc_act"):
        return ""
    return "Q4_0" if bits <= 4 else "Q8_0" if bits == 8 else ""


def _of_weights(packing: Packing) -> Mapping[str, Any]:
    """Return the settings of most weights: compressed-tensors' first group, or else the common settings."""
    groups = packing.settings.get("config_groups")
    for group in groups.values() if isinstance(groups, Mapping) else ():
        if isinstance(group, Mapping) and isinstance(group.get("weights"), Mapping):
            return {**packing.settings, **group["weights"]}
    return packing.settings


def _model_type(config: Mapping[str, Any]) -> str:
    text = config.get("text_config")
    inner = text.get("model_type") if isinstance(text, Mapping) else None
    for value in (config.get("model_type"), inner):
        if isinstance(value, str) and value in _TRAINED:
            return value
    return ""
