"""Explains a quantization in plain words, for beginners, without saying anything that an expert would call wrong.

Bits of a format are exact, from the formats themselves. Bits over a whole model depend on the model, so they are called
approximate."""

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
# The share of all weights that embedding and output matrix (128,256 tokens) have in Llama 3.1 8B
_WEIGHTS, _OUTER_WEIGHTS = 8.03e9, 2 * 128256 * 4096
_EXAMPLE_WEIGHTS = 7_000_000_000


@dataclass(frozen=True)
class Explanation:
    """title: a sentence with the name in its usual spelling and what it is. rows: (question, answer), in the order in
    which people ask. bits_per_weight: approximate, over a whole model; None if it differs from file to file."""

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
    """Return what a quantization or a term is, in plain words: for a quantization its bits, what runs it, how it
    compares.

    name: of a quantization, a term or a file. Raises UsageError, with similar names, for an unknown name."""
    return str(explanation_of(name))


def explanation_of(name: str) -> Explanation:
    """Return the explanation of a name, in pieces. Raises UsageError for an unknown name."""
    return _describe(name, parse_quantization(name))


def _describe(asked: str, quantization: QuantizationName | None) -> Explanation:
    """Return the explanation. asked: what the user typed. Raises UsageError if it is neither a term nor a
    quantization."""
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
    """Return the exact bits per weight of one of GGML's formats; None for a name that is none."""
    try:
        return format_of(ggml_type).bits_per_weight
    except UsageError:
        return None


def whole_model_bits(scheme: Scheme, bits: float) -> float:
    """Return the bits per weight over Llama 3.1 8B, whose embedding and output matrix may stay in 16 bits."""
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
    """Return (mark, meaning) of the marks around a level in the name."""
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
