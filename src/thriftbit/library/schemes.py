"""The table of quantizations, `schemes.toml`, as data."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Family:
    """Quantizations that work alike. what, runs: sentences. container: "GGUF", "safetensors", "any", …. outer_bits: the
    bits in which embedding and output matrix usually stay; None if they are quantized, too. needs: "GPU" or "Mac" if it
    runs on nothing else."""

    name: str
    what: str
    runs: str
    container: str
    outer_bits: float | None = None
    needs: str | None = None


@dataclass(frozen=True)
class Scheme:
    """One quantization. most: the GGML format of most weights. also: other formats that most weights may have in an
    honest file. bits: per weight, None if they differ from file to file. exact: whether bits are the same for every
    model. distinction, standing: sentences for people."""

    name: str
    family: Family
    bits: float | None
    exact: bool
    distinction: str
    standing: str
    most: str | None = None
    also: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()

    @property
    def formats(self) -> tuple[str, ...]:
        """The GGML formats that most weights may have; () if the name does not tell."""
        return (self.most, *self.also) if self.most else ()


def _scheme(name: str, entry: Mapping[str, Any], families: Mapping[str, Family]) -> Scheme:
    return Scheme(
        name=name,
        family=families[entry["family"]],
        bits=entry.get("bits"),
        exact=entry.get("exact", False),
        distinction=entry["is"],
        standing=entry["stands"],
        most=entry.get("most"),
        also=tuple(entry.get("also", ())),
        aliases=tuple(entry.get("aliases", ())),
    )


def _ik_scheme(name: str, bits: float, family: Family) -> Scheme:
    return Scheme(
        name=name,
        family=family,
        bits=bits,
        exact=False,
        distinction=f"{bits:g} bits for most weights; a whole model has a little more.",
        standing="For ik_llama.cpp, in the place of llama.cpp's format of the same size.",
    )


_TABLE: Mapping[str, Any] = tomllib.loads(Path(__file__).with_name("schemes.toml").read_text(encoding="utf-8"))
FAMILIES: Mapping[str, Family] = {name: Family(name, **entry) for name, entry in _TABLE["families"].items()}
SCHEMES: Mapping[str, Scheme] = {
    **{name: _scheme(name, entry, FAMILIES) for name, entry in _TABLE["schemes"].items()},
    **{name: _ik_scheme(name, bits, FAMILIES["ik"]) for name, bits in _TABLE["ik"].items()},
}


def integers(bits: int) -> Scheme:
    """Return the scheme of plain integers with this number of bits, if the table does not list it."""
    known = SCHEMES.get(f"INT{bits}")
    if known is not None:
        return known
    standing = "Read its model card for the method. A GGUF of about the same size runs everywhere."
    return Scheme(f"INT{bits}", FAMILIES["plain-integer"], bits + 0.25, False, f"{bits} bits.", standing)
