"""One row of what `thriftbit find` found: a model on this disk, or on the Hub, and what can be said of it.

What is on this disk is known by its header. On the Hub a name is a claim and a size is a fact: where they do not agree,
the size is believed. What is called Q8_0 and has three bits per weight is not Q8_0.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from thriftbit.library.content import judge
from thriftbit.library.fits import Fits, Memory, estimated_need
from thriftbit.library.hub_search import HubFile
from thriftbit.library.inventory import LocalModel
from thriftbit.library.names import QuantizationName, parse_quantization

HUB = "the Hub"
_TIGHTEST, _LOOSEST = 0.75, 1.3  # true bits over claimed ones, beyond which a name on the Hub is called wrong
_LARGE = 1_000_000_000  # weights; a small model's embedding makes honest names and sizes differ

KnownBy = Literal["header", "size and name", "name", "nothing"]


@dataclass(frozen=True)
class Finding:
    """name: what it is called. what: its precision, None where that could not be told. known_by: where that is from.
    where: the program that keeps it, or HUB. needed_bytes: to run it, None where nothing can be said. command: to run
    next. fits: the memory of this computer. is_ready: a file that programs here run as
    it is. is_original: unquantized, to make one's own from."""

    name: str
    what: str | None
    known_by: KnownBy
    size_bytes: int
    bits_per_weight: float | None
    parameters: int | None
    where: str
    fits: Fits
    needed_bytes: int | None
    needed_is_counted: bool
    command: str
    path: str | None = None
    warning: str | None = None
    problem: str | None = None
    gated: bool = False
    aliases: tuple[str, ...] = ()
    copies: tuple[str, ...] = ()
    downloads: int | None = None
    is_ready: bool = True
    is_original: bool = False

    @property
    def fits_here(self) -> bool:
        return self.fits in ("yes", "tight")

    @property
    def is_local(self) -> bool:
        return self.where != HUB


def local_finding(model: LocalModel, memory: Memory) -> Finding:
    content = model.content
    counted = content.running_bytes if content else None
    needed = counted or (estimated_need(model.size_bytes) if content else None)
    return Finding(
        name=model.name,
        what=model.label,
        known_by="header" if content else "nothing",
        size_bytes=model.size_bytes,
        bits_per_weight=content.bits_per_weight if content else None,
        parameters=content.parameters if content else None,
        where=model.place,
        fits=memory.fits(needed, _needs(model.label)) if content else "unknown",
        needed_bytes=needed,
        needed_is_counted=counted is not None,
        command=_next_for_local(model),
        path=str(model.path),
        warning=model.warning,
        problem=model.problem,
        aliases=model.aliases,
        copies=tuple(map(str, model.copies)),
    )


def _needs(what: str | None) -> str | None:
    quantization = parse_quantization(what or "")
    return quantization.scheme.family.needs if quantization else None


def _next_for_local(model: LocalModel) -> str:
    path = shlex.quote(_short(model.path))
    if model.content is None:
        return f"thriftbit inspect {path}"
    if model.content.container == "GGUF":
        return f"thriftbit {'chat' if model.is_model else 'inspect'} {path}"
    return f"thriftbit inspect {path}" if model.content.declared else f"thriftbit quantize {path} --to Q4_K_M"


def _short(path: Path) -> str:
    """-> as one would type it from here"""
    try:
        relative = str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
    return f"./{relative}" if relative.startswith("-") else relative


def hub_finding(file: HubFile, memory: Memory) -> Finding:
    what, known_by, bits, warning = _what_on_hub(file)
    content = file.content
    counted = content.running_bytes if content else None
    needed = counted or (estimated_need(file.size_bytes) if file.size_bytes else None)
    return Finding(
        name=file.name,
        what=what,
        known_by=known_by,
        size_bytes=file.size_bytes,
        bits_per_weight=bits,
        parameters=content.parameters if content else round(8 * file.size_bytes / bits) if bits else None,
        where=HUB,
        fits=memory.fits(needed, _needs(what)),
        needed_bytes=needed,
        needed_is_counted=counted is not None,
        command=_next_for_hub(file),
        warning=warning,
        problem=file.problem,
        gated=file.gated,
        downloads=file.downloads,
        is_ready=bool(file.files),
        is_original=not file.files and (what or "").endswith("original"),
    )


def _what_on_hub(file: HubFile) -> tuple[str | None, KnownBy, float | None, str | None]:
    """-> its precision, how that is known, bits per weight, and a warning if the name says something else"""
    if file.content is not None:
        verdict = judge(file.content, file.name)
        return verdict.label, "header", file.content.bits_per_weight, verdict.warning
    claim = parse_quantization(file.name)
    bits = 8 * file.size_bytes / file.parameters if file.parameters and file.size_bytes else None
    if not file.files:
        if claim is not None and claim.scheme.family.name != "float":
            weights = _unpacked(file, claim)
            return claim.name, "name", 8 * file.size_bytes / weights if weights else None, None
        types = max(file.types, key=lambda item: item[1])[0]
        plain = types in ("F32", "F16", "BF16")
        return (f"{types}, original" if plain else types), "header", bits, None
    if claim is None:
        return None if bits is None else f"about {bits:.1f} bits", "size and name", bits, None
    stated = claim.bits_per_weight
    if bits and stated and not _TIGHTEST <= bits / stated <= _LOOSEST and (file.parameters or 0) > _LARGE:
        label = f"about {bits:.1f} bits"
        return label, "size and name", bits, f"called {claim.name}, and its size makes it {label}"
    return claim.name, "size and name" if bits else "name", bits, None


def _unpacked(file: HubFile, claim: QuantizationName) -> int | None:
    """-> how many weights a checkpoint has, of which the Hub counts the numbers that they are packed into"""
    if file.parameters or not claim.bits_per_weight:
        return file.parameters
    packed = {"I32": 32, "U32": 32, "U8": 8}
    bits = int(claim.bits_per_weight)
    return sum(count * packed.get(dtype, bits) // bits for dtype, count in file.types) if bits else None


def _next_for_hub(file: HubFile) -> str:
    """-> a command that says what it will download before it does, or is `hf download`, which shows it"""
    if not file.files:
        claim = parse_quantization(file.name)
        if claim is not None and claim.scheme.family.name != "float":
            return f"hf download {shlex.quote(file.repository)}"
        return f"thriftbit quantize {shlex.quote(file.repository)} --to Q4_K_M"
    return f"hf download {shlex.quote(file.repository)} {' '.join(map(shlex.quote, file.files))}"
