"""From what people type to a preset: in any spelling, by format, or by a number of bits."""

from __future__ import annotations

import logging
import re
from difflib import get_close_matches

from thriftbit.errors import UsageError, shown
from thriftbit.library.names import QuantizationName, parse_quantization
from thriftbit.library.schemes import SCHEMES
from thriftbit.quantization.presets import PRESETS, Preset

_logger = logging.getLogger(__name__)

_STATED_BITS = re.compile(r"(int|q|w)?[-_ ]?(?P<bits>[1-8])[-_ ]?(bits?)?", re.IGNORECASE)
_FLOATS = ("F", "BF")
# Of so many bits; the first that is made. Those of one and two bits need importance data.
_CANDIDATES = {
    1: ("IQ1_M",),
    2: ("IQ2_M", "Q2_K"),
    3: ("Q3_K_M",),
    4: ("Q4_K_M",),
    5: ("Q5_K_M",),
    6: ("Q6_K",),
    8: ("Q8_0",),
}
_USUAL = {
    bits: names[0] for bits, every in _CANDIDATES.items() if (names := [name for name in every if name in PRESETS])
}


def preset_named(name: str) -> Preset:
    """Return the preset of this name: in any spelling (q4km), by its format (Q4_K), or by a number of bits (4bit,
    int4).

    For a number of bits the usual preset is taken, which is logged. Raises UsageError, with what comes near, if there
    is none."""
    name = name.strip()
    spelled = _plain(name)
    for preset in PRESETS.values():
        if spelled == _plain(preset.name):
            return preset
    stated = _STATED_BITS.fullmatch(name)
    usual = _USUAL.get(int(stated["bits"])) if stated else None
    if usual is not None:
        _logger.info(f"Note: {name} does not say which format: taking {usual}, the usual one of {stated_bits(usual)}.")
        return PRESETS[usual]
    found = parse_quantization(name) if len(name) < 40 and not set(name) & set("./\\") else None
    if found is None:
        raise UsageError(_unknown(name))
    if found.name not in PRESETS:
        raise UsageError(_not_made(found))
    if not found.name.startswith(_FLOATS) and not _plain(found.name).startswith(spelled):
        raise UsageError(_unknown(name))  # something is behind the name of a preset
    return PRESETS[found.name]


def _plain(name: str) -> str:
    return re.sub(r"[-_ ]", "", name).upper()


def stated_bits(preset: str) -> str:
    """Return "4.89 bits per weight", over a model of usual shapes."""
    return f"{SCHEMES[preset].bits:.3g} bits per weight"


def _unknown(name: str) -> str:
    near = get_close_matches(name.upper()[:40], PRESETS, 3, cutoff=0.6)
    if near:
        return f"there is no preset {shown(name)}; do you mean {' or '.join(near)}?"
    return f"there is no preset {shown(name)}; Q4_K_M suits most people. Without --to, all presets are shown"


def _not_made(quantization: QuantizationName) -> str:
    """Return a sentence that says that no preset makes this, and which comes nearest."""
    digit = re.search(r"\d", quantization.name) if quantization.scheme.family.container == "GGUF" else None
    bits = int(digit[0]) if digit else int(quantization.bits_per_weight or 4)
    nearest = _USUAL[max((known for known in _USUAL if known <= bits), default=min(_USUAL))]
    return (
        f"Thriftbit does not make {quantization.name}; the nearest that it makes is {nearest}, of "
        f"{stated_bits(nearest)}. `thriftbit explain {quantization.name}` says more"
    )
