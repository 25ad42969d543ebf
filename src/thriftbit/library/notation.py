"""How quantizations are written in names: the patterns, and nothing about what they mean.

Patterns see one part of a path without its extension. A token ends where letters and digits do, so that "Qwen3-Q4"
holds Q4 and "Qwen3" holds nothing.
"""

from __future__ import annotations

import re

_START, _END = r"(?<![A-Za-z0-9])", r"(?![A-Za-z0-9])"


def _token(pattern: str) -> re.Pattern[str]:
    return re.compile(f"{_START}(?:{pattern}){_END}", re.IGNORECASE)


# llama.cpp's levels and those of its relatives. Longer names come first: the first alternative that fits is taken.
LEVEL = re.compile(
    rf"""{_START}
    (?P<dynamic>UD[-_.])?
    (?P<importance>i1[-_.])?
    (?P<level>
        TQ[12][-_]?0 | I2_S | TL[12]
      | MXFP4[-_]MOE | MXFP4 | NVFP4 | ROCm?FP(?:4|X)(?:[-_]\w+)?
      | IQ[1-6][-_]?(?:XXS|KSS|XS|NL|KS|KL|KT|BN|S|M|K)
      | Q8_KV
      | Q[1-8][-_]?K(?:[-_]?(?:XL|XS|[SMLP]))?
      | Q4_0_[48]_[48]
      | Q[1-8][-_][0-3]
    )
    (?P<rows>_R(?:4|8|16))?
    {_END}""",
    re.IGNORECASE | re.VERBOSE,
)
BARE_LEVEL = re.compile(rf"{_START}q(?P<bits>[234568])$")
FLOAT = re.compile(rf"{_START}(?:bf16|bfloat16|fp?16|float16|fp?32|float32){_END}")
UNQUANTIZED = re.compile(r"(?:un|de)quantized", re.IGNORECASE)
QUANTIZATION_AWARE = _token("qat")
IMPORTANCE = _token("i1|imat|imatrix")
MLX_HINT = re.compile(rf"{_START}mlx")

# Usual spellings of llama.cpp's levels that lack their last letter.
_SHORT = {"Q5_K": "Q5_K_M", "Q4_K": "Q4_K_M", "Q3_K": "Q3_K_M"}

_MLX_BITS = rf"{_START}mlx(?=.*{_START}q?[2-8](?:[-_]?bits?)?{_END})|{_START}[2-8][-_]?bit[-_]mlx{_END}"

# (scheme, its pattern, its spelling). The first that is found decides. A model that is stored in another method's way
# (AutoRound as GPTQ) or made by two methods (AWQ turned into MLX) is named by what decides which programs run it.
METHODS: tuple[tuple[str, re.Pattern[str], str], ...] = (
    ("EXL3", _token(r"exl3|exllamav3"), "EXL3-{average}bpw"),
    ("EXL2", _token(r"exl2|exllamav2"), "EXL2-{average}bpw"),
    ("MXFP8", _token("mxfp8"), "MXFP8"),
    ("NVFP4", _token("fp4"), "NVFP4"),
    ("AQLM", _token("aqlm"), "AQLM-{bits}bit"),
    ("QTIP", _token("qtip"), "QTIP-{bits}bit"),
    ("QuIP#", _token(r"quip(?:#|sharp)?|e8p(?:rvq)?") , "QuIP#-{bits}bit"),
    ("VPTQ", _token(r"vptq|v\d+-k\d+-\d+(?:-\w+)?"), "VPTQ"),
    ("SpQR", _token("spqr"), "SpQR"),
    ("HIGGS", _token("higgs"), "HIGGS-{bits}bit"),
    ("EETQ", _token("eetq"), "EETQ"),
    ("SpinQuant", _token("spinquant"), "SpinQuant"),
    ("HQQ", _token("hqq"), "HQQ-{bits}bit"),
    ("quanto", _token(r"quanto|qint[248]"), "quanto-int{bits}"),
    ("torchao", _token(r"torchao|int[48]wo|8da4w|int8-int4"), "torchao"),
    ("unsloth-bnb-4bit", _token(r"unsloth-bnb-4bit"), "unsloth-bnb-4bit"),
    ("NF4", _token("nf4"), "NF4"),
    ("bitsandbytes", _token(r"bnb|bitsandbytes"), "bnb-{bits}bit"),
    ("AutoRound", _token(r"auto[-_]?round|sym-inc|inc"), "AutoRound-Int{bits}"),
    ("MLC", _token(r"mlc|q\df(?:16|32)_\d"), "MLC"),
    ("q4f16", _token("q4f16"), "q4f16"),
    ("MLX-DWQ", _token("dwq"), "MLX-{bits}bit-DWQ"),
    ("MLX", re.compile(_MLX_BITS), "MLX-{bits}bit"),
    ("GPTQ-Int4-Int8Mix", _token(r"int4-int8mix"), "GPTQ-Int4-Int8Mix"),
    ("GPTQ", _token(r"gptq|[2-8]bit[-_]\d+g"), "GPTQ-Int{bits}"),
    ("AWQ", _token("awq"), "AWQ-Int{bits}"),
    ("W4A16", _token("w4a16"), "W4A16"),
    ("W8A16", _token("w8a16"), "W8A16"),
    ("W8A8", _token("w8a8"), "W8A8"),
    ("W4A8", _token(r"w4a8|w4afp8"), "W4A8"),
    ("W4A4", _token("w4a4"), "W4A4"),
    ("FP8-Dynamic", _token(r"fp8[-_]dynamic"), "FP8-Dynamic"),
    ("FP8-Block", _token(r"fp8[-_]block"), "FP8-Block"),
    ("FP8", _token(r"fp8|float8|f8_e[45]m[23]|e4m3fn?|e5m2"), "FP8"),
    ("OpenVINO-int4", _token(r"int4(?:[-_]\w+)?[-_]ov"), "OpenVINO-int4"),
    ("OpenVINO-int8", _token(r"int8(?:[-_]\w+)?[-_]ov"), "OpenVINO-int8"),
    ("BitNet", _token(r"b1[._]58(?:bits?)?|bitnet|1[._]58[-_]?bits?"), "BitNet"),
)  # fmt: skip

_BITS = (
    re.compile(rf"{_START}(?:u?q?int|w|wi)-?([2-8]){_END}"),
    re.compile(rf"{_START}(?<!\d\.)([1-8])[-_ ]?bits?(?:gs\d+)?{_END}"),
    re.compile(rf"{_START}w([248])a\d{{1,2}}{_END}"),
    re.compile(rf"{_START}w([248])g\d+{_END}"),
    re.compile(rf"{_START}mlx.*?{_START}q([2-8]){_END}"),
)
_AVERAGE = re.compile(r"(?<![A-Za-z0-9.])(\d{1,2}(?:[._]\d{1,4})?)[-_ ]?bpw(?![A-Za-z0-9])", re.IGNORECASE)


def canonical_level(match: re.Match[str], complete: bool = True) -> str:
    """Return the usual spelling of a level that LEVEL found. The level may not exist.

    complete: return Q4_K_M for Q4_K, which is a format and no level."""
    text = match["level"].upper().replace("-", "_")
    if text.startswith("ROC"):
        return "ROCmFP4"
    if text.startswith(("MX", "NV", "I2", "TL")) or text == "Q8_KV":
        return text
    squeezed = re.fullmatch(r"(I?Q|TQ)(\d)_?(\d(?:_\d_\d)?|K|[A-Z]+?)(?:_?(XL|XS|[SMLP]))?", text)
    if squeezed is None or text.startswith("IQ"):
        return re.sub(r"^(IQ\d)_?", r"\1_", text)
    kind, bits, middle, size = squeezed.groups()
    name = f"{kind}{bits}_{middle}" + (f"_{size}" if size else "")
    return _SHORT.get(name, name) if complete else name


def canonical_float(text: str) -> str:
    """Return the usual spelling of a match of FLOAT: "BF16"."""
    return "BF16" if text.startswith("b") else "F32" if text.endswith("32") else "F16"


def stated_bits(text: str) -> int | None:
    """Return the number of bits in a name in lower case: int4, 4bit, 4-bit, w4a16, mlx-q4; None if there is none."""
    for pattern in _BITS:
        found = pattern.findall(text)
        if found:
            return int(found[-1])
    return None


def stated_average_bits(text: str) -> float | None:
    """Return 4.25 for a name with "4.25bpw" or "4_25bpw"; None if there is no such number, or it is impossibly
    large."""
    found = _AVERAGE.search(text)
    bits = float(found[1].replace("_", ".")) if found else 0.0
    return bits if 0 < bits <= 32 else None
