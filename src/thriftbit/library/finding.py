"""`thriftbit find`: what there is of a model, on this disk and on the Hub, best first, marked with what fits here.

Expected quality decides the order: how many weights there are, and how much of each is kept. In the scaling law of
Kumar et al. (Scaling Laws for Precision, 2024, arXiv 2411.04330) a model of N weights in P bits is worth one of
N·(1 − exp(−P/γ)) weights, with γ about 2.7 for weights; that is an order, not a measurement, and no number of it is
shown. For what a precision costs this model on this computer there are `thriftbit measure` and `thriftbit fit`.

Nothing is downloaded.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from thriftbit.errors import UsageError
from thriftbit.library.content import judge
from thriftbit.library.fits import Fits, Memory, estimated_need, memory_here
from thriftbit.library.hub_search import HubFile, search_hub
from thriftbit.library.inventory import LocalModel, take_inventory
from thriftbit.library.names import parse_quantization

HUB = "the Hub"
_GAMMA = 2.7  # bits
_FULL_BITS = 16.0
_TIGHTEST, _LOOSEST = 0.75, 1.3  # true bits over claimed ones, beyond which a name on the Hub is called wrong

KnownBy = Literal["header", "size and name", "name", "nothing"]


@dataclass(frozen=True)
class Finding:
    """name: what it is called. what: its precision, None where that could not be told. known_by: where that is from.
    where: the program that keeps it, or HUB. needed_bytes: to run it, None where nothing can be said. command: to run
    next. fits: the memory of this computer."""

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

    @property
    def is_local(self) -> bool:
        return self.where != HUB


@dataclass(frozen=True)
class Findings:
    """local, hub: each the best first; what could not be read comes last. notes: sentences on what was not looked at,
    and why. memory: of this computer. hub_asked: whether the Hub answered."""

    words: tuple[str, ...]
    local: tuple[Finding, ...]
    hub: tuple[Finding, ...]
    notes: tuple[str, ...]
    memory: Memory
    hub_answered: bool

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def find(
    words: Sequence[str] = (),
    *,
    local: bool = False,
    offline: bool = False,
    look: bool = False,
    announce: Callable[[str], None] = lambda message: None,
) -> Findings:
    """-> models whose names or contents have all words: on this disk and, unless `local` or `offline`, on the Hub

    Without words, everything on this disk. look: read headers on the Hub too, some megabytes for each GGUF file.
    announce: told what takes long. Never fails for a file or a Hub that cannot be read: that is in the findings.
    """
    words = [part for word in words for part in word.split()]
    if look and (local or offline or not words):
        raise UsageError("--look reads headers on the Hub: give words to search, and neither --local nor --offline")
    memory = memory_here()
    inventory = take_inventory(words, announce=announce)
    here = [_local(model, memory) for model in inventory.models if model.is_model]
    notes = list(inventory.warnings)
    there: list[Finding] = []
    answered = False
    if words and not local and not offline:
        answer = search_hub(words, look=look)
        there = [_on_hub(file, memory) for file in answer.files]
        answered = bool(answer.files) or answer.problem is None
        notes += [answer.problem] if answer.problem else []
    return Findings(
        words=tuple(words),
        local=tuple(sorted(here, key=_order)),
        hub=tuple(sorted(there, key=_order)),
        notes=tuple(notes),
        memory=memory,
        hub_answered=answered,
    )


def _order(finding: Finding) -> tuple[bool, float, float, str]:
    quality = expected_quality(finding.parameters, finding.bits_per_weight)
    return (finding.what is None, -quality, -(finding.downloads or 0), finding.name)


def expected_quality(parameters: int | None, bits_per_weight: float | None) -> float:
    """-> a number that orders models of one family by what they may be worth; 0 where nothing is known"""
    if not parameters or not bits_per_weight:
        return 0.0
    return parameters * (1 - math.exp(-min(bits_per_weight, _FULL_BITS) / _GAMMA))


def _local(model: LocalModel, memory: Memory) -> Finding:
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
        fits=memory.fits(needed),
        needed_bytes=needed,
        needed_is_counted=counted is not None,
        command=_next_for_local(model),
        path=str(model.path),
        warning=model.warning,
        problem=model.problem,
        aliases=model.aliases,
        copies=tuple(map(str, model.copies)),
    )


def _next_for_local(model: LocalModel) -> str:
    path = shlex.quote(_short(model.path))
    if model.content is None or model.content.container == "GGUF":
        return f"thriftbit inspect {path}"
    return f"thriftbit inspect {path}" if model.content.declared else f"thriftbit quantize {path} --to Q4_K_M"


def _short(path: Path) -> str:
    """-> as one would type it from here"""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def _on_hub(file: HubFile, memory: Memory) -> Finding:
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
        parameters=content.parameters if content else file.parameters,
        where=HUB,
        fits=memory.fits(needed),
        needed_bytes=needed,
        needed_is_counted=counted is not None,
        command=_next_for_hub(file),
        warning=warning,
        problem=file.problem,
        gated=file.gated,
        downloads=file.downloads,
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
            return claim.name, "name", None, None
        types = max(file.types, key=lambda item: item[1])[0]
        plain = types in ("F32", "F16", "BF16")
        return (f"{types}, original" if plain else types), "header", bits, None
    if claim is None:
        return None if bits is None else f"about {bits:.1f} bits", "size and name", bits, None
    stated = claim.bits_per_weight
    if bits and stated and not _TIGHTEST <= bits / stated <= _LOOSEST and (file.parameters or 0) > 1_000_000_000:
        label = f"about {bits:.1f} bits"
        return label, "size and name", bits, f"called {claim.name}, and its size makes it {label}"
    return claim.name, "size and name" if bits else "name", bits, None


def _next_for_hub(file: HubFile) -> str:
    """-> a command that says what it will download before it does, or is `hf download`, which shows it"""
    if not file.files:
        claim = parse_quantization(file.name)
        if claim is not None and claim.scheme.family.name != "float":
            return f"hf download {shlex.quote(file.repository)}"
        return f"thriftbit quantize {shlex.quote(file.repository)} --to Q4_K_M"
    return f"hf download {shlex.quote(file.repository)} {' '.join(map(shlex.quote, file.files))}"
