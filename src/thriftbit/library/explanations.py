"""A quantization in plain words: clear to whoever never heard of it, and nothing that an expert would strike out.

Numbers come with their origin. Bits of a format are exact, from the formats themselves; bits over a whole model depend
on the model, and are said to be about so many.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import Any

from thriftbit.containers.ggml_types import format_of
from thriftbit.errors import UsageError, shown
from thriftbit.library.names import QuantizationName, parse_quantization
from thriftbit.library.schemes import SCHEMES, Scheme
from thriftbit.library.terms import TERMS, spellings, term_named
from thriftbit.sizes import describe_bytes

_NAMES_A_MODEL = re.compile(r"^[\w.-]+:[\w.-]+$|^[\w.-]+/[\w.-]+$|\b\d+(\.\d+)?b\b", re.IGNORECASE)
# Llama 3.1 8B: what its embedding and output matrix, of 128,256 tokens, take of all weights
_WEIGHTS, _OUTER_WEIGHTS = 8.03e9, 2 * 128256 * 4096
_EXAMPLE_WEIGHTS = 7_000_000_000


@dataclass(frozen=True)
class Explanation:
    """title: the name in its usual spelling and what it is, in a sentence. rows: (question, answer), in the order in
    which people ask. bits_per_weight: about, over a whole model; None where it is each file's own."""

    name: str
    title: str
    rows: tuple[tuple[str, str], ...]
    family: str | None = None
    container: str | None = None
    bits_per_weight: float | None = None
    exact: bool = False

    def __str__(self) -> str:
        return "\n".join([self.title, *(f"{question}: {answer}" for question, answer in self.rows)])

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "title": self.title,
            "family": self.family,
            "container": self.container,
            "bits_per_weight": self.bits_per_weight,
            "bits_are_exact": self.exact,
            "answers": dict(self.rows),
        }


def explain(name: str) -> str:
    """Return what a quantization is, in plain words: its bits, what runs it, how it compares. `name` may be a file's.
    Raises UsageError, with similar names, for one that is not known."""
    return str(explanation_of(name))


def explanation_of(name: str) -> Explanation:
    """Return the same, in pieces."""
    return _describe(name, parse_quantization(name))


def _describe(asked: str, quantization: QuantizationName | None) -> Explanation:
    """asked: what the user typed. Raises UsageError where it is neither a term nor the name of a quantization."""
    term = term_named(asked)
    if term is not None:
        also = (("Also called", ", ".join(term.also)),) if term.also else ()
        return Explanation(term.name, f"{term.name}: {term.meaning}", also)
    if quantization is None:
        raise UsageError(_unknown(asked))
    scheme = quantization.scheme
    rows = [
        ("Bits per weight", _bits(quantization)),
        *_size(quantization),
        ("How it works", scheme.family.what),
        ("Runs in", f"{scheme.family.runs}."),
        ("Where it stands", scheme.standing),
        *_signs(quantization),
    ]
    return Explanation(
        name=quantization.name,
        title=f"{quantization.name}: {scheme.distinction}",
        rows=tuple(rows),
        family=scheme.family.name,
        container=scheme.family.container,
        bits_per_weight=quantization.bits_per_weight,
        exact=quantization.exact,
    )


def format_bits(ggml_type: str) -> float | None:
    """Return bits per weight of one of GGML's formats, exactly; None for a name that is none."""
    try:
        return format_of(ggml_type).bits_per_weight
    except UsageError:
        return None


def whole_model_bits(scheme: Scheme, bits: float) -> float:
    """Return bits per weight over Llama 3.1 8B, of which embedding and output matrix may stay in 16."""
    if scheme.family.outer_bits is None:
        return bits
    outer = _OUTER_WEIGHTS / _WEIGHTS
    return bits * (1 - outer) + scheme.family.outer_bits * outer


def _bits(quantization: QuantizationName) -> str:
    bits, scheme = quantization.bits_per_weight, quantization.scheme
    if bits is None:
        return "each file has its own; the number before bpw in its name says it"
    if quantization.exact:
        return f"{bits:g}, exactly, in every matrix"
    if scheme.family.outer_bits is not None:
        whole = whole_model_bits(scheme, bits)
        return (
            f"about {bits:.3g}, scales included; embedding and output matrix usually stay in 16 bits, which makes "
            f"about {whole:.2g} over all of an 8B model"
        )
    inside = format_bits(scheme.most) if scheme.most else None
    most = f"; exactly {inside:g} in most of its weights ({scheme.most})" if inside else ""
    return f"about {bits:.3g} over a whole model (small models take more){most}"


def _size(quantization: QuantizationName) -> list[tuple[str, str]]:
    if not quantization.bits_per_weight:
        return []
    bits = whole_model_bits(quantization.scheme, quantization.bits_per_weight)
    about = "" if quantization.exact else "about "
    size, full = (describe_bytes(round(_EXAMPLE_WEIGHTS * b / 8)) for b in (bits, 16))
    return [("A 7B model", f"{about}{size}; in 16 bits, as published, {full}")]


def _signs(quantization: QuantizationName) -> list[tuple[str, str]]:
    """Return what the marks around the level mean."""
    signs = {
        "UD": quantization.dynamic,
        "importance matrix": quantization.importance,
        "QAT": quantization.quantization_aware,
    }
    rows = [(f"In this name, {sign}", TERMS[sign].meaning) for sign, there in signs.items() if there]
    if interleaved := re.search(r"_R(\d+)$", quantization.name):
        what = f"{interleaved[1]} rows are interleaved, for speed on CPUs; only ik_llama.cpp reads it."
        rows.append((f"In this name, R{interleaved[1]}", what))
    return rows


def _unknown(asked: str) -> str:
    known = {**{name.lower(): name for name in SCHEMES}, **spellings()}
    close = difflib.get_close_matches(asked.strip().lower()[:40], known, n=3, cutoff=0.75)
    names = list(dict.fromkeys(known[name] for name in close))
    if names:
        return f"I don't know {shown(asked)}. Do you mean {' or '.join(names)}?"
    if _NAMES_A_MODEL.search(asked.strip()[:200]):
        return (
            f"{shown(asked)} names a model without a quantization. Ollama then gives you its default, usually Q4_K_M: "
            "`thriftbit explain Q4_K_M`"
        )
    return (
        f"I don't know {shown(asked)}. You can ask about a quantization (Q4_K_M, AWQ, int4), the name of a file, or a "
        "term such as perplexity; `thriftbit explain` lists all terms"
    )
