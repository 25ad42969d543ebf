"""Instruction sets that matter for the arithmetic of quantized models, under the names that people know.

Systems spell them differently: Linux in /proc/cpuinfo, py-cpuinfo in its flags, macOS in sysctl.
"""

from __future__ import annotations

from collections.abc import Iterable

# the name, and every spelling of it, in lower case
_SPELLINGS = {
    "SSE4.2": ("sse4_2", "sse4.2"),
    "AVX": ("avx", "avx1.0"),
    "F16C": ("f16c",),
    "FMA": ("fma",),
    "AVX2": ("avx2",),
    "AVX-VNNI": ("avx_vnni", "avxvnni"),
    "AVX-512": ("avx512f",),
    "AVX-512 VNNI": ("avx512_vnni", "avx512vnni"),
    "AVX-512 BF16": ("avx512_bf16", "avx512bf16"),
    "AMX": ("amx_int8", "amx_bf16", "amx_tile"),
    "NEON": ("asimd", "neon", "advsimd"),
    "FP16": ("asimdhp", "feat_fp16"),
    "DOTPROD": ("asimddp", "feat_dotprod"),
    "I8MM": ("i8mm", "feat_i8mm"),
    "BF16": ("bf16", "feat_bf16"),
    "SVE": ("sve",),
    "SVE2": ("sve2",),
    "SME": ("sme", "feat_sme"),
    "RVV": ("rvv",),
    "VSX": ("vsx",),
}


def instruction_sets(flags: Iterable[str]) -> tuple[str, ...]:
    """Return the flags that are known here, in the order of this table."""
    present = {flag.lower() for flag in flags}
    return tuple(name for name, spellings in _SPELLINGS.items() if not present.isdisjoint(spellings))
