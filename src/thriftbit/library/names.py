"""Reads the precision from the name of a file or repository.

There is no standard. llama.cpp's levels (Q4_K_M) come with prefixes (UD-, i1-) and suffixes (_R4, -4.05bpw), in any
case and with any separator; other methods are words beside a number of bits (GPTQ-Int4, 4bit-DWQ, w4a16,
4.0bpw-h6-exl2); and model names are full of digits that mean something else (Qwen3, Phi-4, v0.3, 00001-of-00003). So a
name is read from the right: the file, then its folder, then the repository. In each part, unambiguous names are tried
first: a level of llama.cpp (the last of several), then the name of a method, then a bare number of bits, then 16- or
32-bit floats.

A name is a claim: `content.py` says what is in the file. Left out: guessing from a size, and names of whole collections
such as "GGUF", which say nothing about precision.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from thriftbit.library.notation import (
    BARE_LEVEL,
    FLOAT,
    IMPORTANCE,
    LEVEL,
    METHODS,
    MLX_HINT,
    QUANTIZATION_AWARE,
    UNQUANTIZED,
    canonical_float,
    canonical_level,
    stated_average_bits,
    stated_bits,
)
from thriftbit.library.schemes import SCHEMES, Scheme, integers

_EXTENSIONS = re.compile(
    r"\.(gguf|ggml|bin|safetensors|llamafile|onnx|imatrix|pt|pth)(\.part\d+of\d+)?$", re.IGNORECASE
)
_SHARD = re.compile(r"[-.]\d{5}[-_]of[-_]\d{5}$|\.gguf-split-\w+$", re.IGNORECASE)
_GGUF_FILE = re.compile(r"\.(gguf|ggml|llamafile)$|ggml.*\.bin$", re.IGNORECASE)
_SEPARATORS = re.compile(r"[/\\:@]")
_EXL_BRANCH = re.compile(r"(\d)_(\d{1,2})")
_USUAL_LEVELS = {2: "Q2_K", 3: "Q3_K_M", 4: "Q4_K_M", 5: "Q5_K_M", 6: "Q6_K", 8: "Q8_0"}
_BY_NAME = {name.lower(): scheme for name, scheme in SCHEMES.items()}
_LONGEST = 1000  # characters; no name of a file is longer


@dataclass(frozen=True)
class QuantizationName:
    """name: in its usual spelling, "UD-Q4_K_XL" or "GPTQ-Int4". bits_per_weight: approximate, over a whole model, None
    if the name does not tell. exact: whether that number is the same for every model. dynamic: whether bits were chosen
    tensor by tensor (Unsloth's UD). importance: whether rounded with an importance matrix. quantization_aware: whether
    the model was trained for it."""

    name: str
    scheme: Scheme
    bits_per_weight: float | None
    exact: bool = False
    dynamic: bool = False
    importance: bool = False
    quantization_aware: bool = False


def parse_quantization(name: str) -> QuantizationName | None:
    """Return the precision in the name of a file, a path, a repository or an Ollama model; None if there is none."""
    name = name.strip()[:_LONGEST]
    is_gguf = bool(_GGUF_FILE.search(name))
    parts = [part for part in _SEPARATORS.split(name) if part]
    for index in reversed(range(len(parts))):
        stem = _SHARD.sub("", _EXTENSIONS.sub("", parts[index]))
        found = _parse_part(stem, " ".join(parts).lower(), is_gguf, alone=len(parts) == 1)
        if found is not None:
            aware = any(QUANTIZATION_AWARE.search(part) for part in parts)
            return replace(found, quantization_aware=aware)
    scheme = _BY_NAME.get(name.lower())
    return QuantizationName(scheme.name, scheme, scheme.bits, scheme.exact) if scheme else None


def _parse_part(stem: str, context: str, is_gguf: bool, alone: bool) -> QuantizationName | None:
    """Return the precision in one part of a path; None if there is none. stem: the part. context: the whole path, in
    lower case."""
    if unquantized := UNQUANTIZED.search(stem):
        stem = stem[unquantized.end() :]
    level = _level(stem)
    if level is not None:
        return level
    lower = stem.lower()
    if not is_gguf:
        method = _method(lower, context, alone)
        if method is not None:
            return method
    floats = list(FLOAT.finditer(lower))
    if floats:
        scheme = SCHEMES[canonical_float(floats[-1][0])]
        return QuantizationName(scheme.name, scheme, scheme.bits, scheme.exact)
    bare = BARE_LEVEL.search(lower)
    bits = int(bare["bits"]) if bare and (is_gguf or bare[0] == lower) else stated_bits(lower) if is_gguf else None
    return _bare_level(bits) if bits in _USUAL_LEVELS else None


def _level(stem: str) -> QuantizationName | None:
    """Return a level of llama.cpp or of its relatives; None if the part has none."""
    found = [match for match in LEVEL.finditer(stem) if canonical_level(match) in SCHEMES]
    if not found:
        return None
    match = found[-1]
    scheme = SCHEMES[canonical_level(match)]
    dynamic = bool(match["dynamic"])
    importance = bool(match["importance"] or IMPORTANCE.search(stem))
    average = stated_average_bits(stem.lower())
    interleaved = (match["rows"] or "").upper()
    if interleaved:
        scheme = replace(scheme, family=SCHEMES["IQ4_K"].family)
    name = f"{'UD-' if dynamic else ''}{canonical_level(match, complete=not interleaved)}{interleaved}"
    exact = scheme.exact and average is None and not dynamic
    return QuantizationName(name, scheme, average or scheme.bits, exact, dynamic, importance)


def _method(lower: str, context: str, alone: bool) -> QuantizationName | None:
    """Return a quantization of another program; None if the part has none."""
    for scheme_name, pattern, spelling in METHODS:
        match = pattern.search(lower)
        if match:
            bits = stated_bits(lower) if "{bits}" in spelling else None
            return _spelled(SCHEMES[scheme_name], spelling, bits, stated_average_bits(lower))
    bits = stated_bits(lower)
    if bits and MLX_HINT.search(context):
        return _spelled(SCHEMES["MLX"], "MLX-{bits}bit", bits, None)
    if bits:
        scheme = integers(bits)
        return QuantizationName(scheme.name, scheme, scheme.bits)
    return _exllama(lower, context, alone)


def _exllama(lower: str, context: str, alone: bool) -> QuantizationName | None:
    """Return the quantization of a branch such as 4.0bpw or 4_25, if the repository's name tells which of ExLlama's two
    formats it is."""
    average = stated_average_bits(lower)
    branch = _EXL_BRANCH.fullmatch(lower)
    if average is None and branch and (alone or "exl" in context):
        average = float(f"{branch[1]}.{branch[2]}")
    if average is None:
        return None
    kind = "EXL3" if "exl3" in context else "EXL2" if "exl2" in context else "bpw"
    return _spelled(SCHEMES[kind], f"{kind}-{{average}}bpw" if kind != "bpw" else "{average}bpw", None, average)


def _spelled(scheme: Scheme, spelling: str, bits: int | None, average: float | None) -> QuantizationName:
    if "{average}" in spelling:
        name = spelling.replace("{average}", _decimal(average)) if average else spelling.replace("-{average}bpw", "")
        return QuantizationName(name, scheme, average)
    if bits is None:  # names leave out the scheme's usual number
        return QuantizationName(re.sub(r"-[A-Za-z]*\{bits\}(bit)?", "", spelling), scheme, average or scheme.bits)
    overhead = scheme.bits - round(scheme.bits) if scheme.bits else 0.25
    return QuantizationName(spelling.replace("{bits}", str(bits)), scheme, bits + max(overhead, 0.0))


def _decimal(bits: float) -> str:
    """Return bits as people write them: "4.0", "4.25"."""
    return f"{bits:g}" if bits % 1 else f"{bits:.1f}"


def _bare_level(bits: int) -> QuantizationName:
    """Return the quantization of a bare "Q4": about that many bits, in one of llama.cpp's formats."""
    usual = _USUAL_LEVELS[bits]
    known = SCHEMES[usual]
    scheme = replace(
        known,
        name=f"Q{bits}",
        most=None,
        also=(),
        exact=False,
        distinction=f"About {bits} bits; which of llama.cpp's {bits}-bit levels it is is not in the name.",
        standing=f"Look inside with `thriftbit inspect`; {usual} is the usual one. {known.standing}",
    )
    return QuantizationName(f"Q{bits}", scheme, known.bits)
