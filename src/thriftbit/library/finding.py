"""`thriftbit find`: the files of a model on this disk and on the Hub, best first, marked with whether they fit here.

Expected quality decides the order. It grows with the number of weights and with the bits of each. In the scaling law of
Kumar et al. (Scaling Laws for Precision, 2024, arXiv 2411.04330), a model of N weights in P bits is as good as an
unquantized model of N·(1 − exp(−P/γ)) weights, with γ about 2.7. This is good enough for an order, but it is no
measurement, so the number is not shown. `thriftbit measure` and `thriftbit fit` tell the loss of one model on this
computer.

The header of a file on this disk says what it is. On the Hub a name is a claim and a size is a fact: if they disagree,
the size decides. Nothing is downloaded."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from thriftbit.errors import UsageError
from thriftbit.library.content import judge
from thriftbit.library.disk_search import from_here
from thriftbit.library.hub_search import HubFile, search_hub
from thriftbit.library.inventory import LocalModel, matches, take_inventory
from thriftbit.library.kinds import TEXT
from thriftbit.library.names import QuantizationName, parse_quantization
from thriftbit.machine.room import Fits, Room, estimated_need, room_here
from thriftbit.notebook import html_table
from thriftbit.sizes import describe_bytes
from thriftbit.strangers import quoted

_GAMMA = 2.7  # bits
_FULL_BITS = 16.0
_READY_BITS = 9  # the most bits per weight of a file that is worth downloading ready-made: Q8_0 and below
USUAL_LEVEL = "Q4_K_M"
_USUAL_SHARE = 4.89 / 16  # the size of Q4_K_M as a share of the original's
HUB = "the Hub"
_TIGHTEST, _LOOSEST = (
    0.75,
    1.3,
)  # true bits divided by claimed bits; outside of these limits a name on the Hub is called wrong
_LARGE = 1_000_000_000  # weights; a small model's embedding makes honest names and sizes differ

KnownBy = Literal["header", "size and name", "name", "nothing"]


@dataclass(frozen=True)
class Finding:
    """One row of what was found.

    name: a name that every command takes. kind: one of `kinds.KINDS`. what: its precision, None if that is not known.
    known_by: the source of the precision. where: the program that keeps it, or HUB. needed_bytes: memory to run it,
    None if that is not known. command: the next step. fits: whether it fits into this computer's memory. is_ready:
    whether llama.cpp runs the file as it is. is_original: whether it is unquantized, so that other files can be made of
    it."""

    name: str
    kind: str
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
    def writes_text(self) -> bool:
        return self.kind == TEXT

    @property
    def can_chat(self) -> bool:
        """Whether `thriftbit chat` runs it as it is."""
        return self.kind == TEXT and self.is_ready

    @property
    def is_local(self) -> bool:
        return self.where != HUB


def local_finding(model: LocalModel, room: Room, *, name_is_unique: bool = True) -> Finding:
    """Return the finding of a model on this disk.

    room: of this computer. name_is_unique: whether no other model here has this name; only then does the next step use
    it."""
    content = model.content
    counted = content.running_bytes if content else None
    needed = counted or (estimated_need(model.size_bytes) if content else None)
    return Finding(
        name=model.name,
        kind=model.kind,
        what=model.label,
        known_by="header" if content else "nothing",
        size_bytes=model.size_bytes,
        bits_per_weight=content.bits_per_weight if content else None,
        parameters=content.parameters if content else None,
        where=model.place,
        fits=room.fits(needed, _needs(model.label)) if content else "unknown",
        needed_bytes=needed,
        needed_is_counted=counted is not None,
        command=_next_for_local(model, name_is_unique),
        path=str(model.path),
        warning=model.warning,
        problem=model.problem,
        aliases=model.aliases,
        copies=tuple(map(str, model.copies)),
        is_ready=content is not None and content.container == "GGUF",
        is_original=content is not None and content.container != "GGUF" and not content.declared,
    )


def _needs(what: str | None) -> str | None:
    quantization = parse_quantization(what or "")
    return quantization.scheme.family.needs if quantization else None


def _next_for_local(model: LocalModel, name_is_unique: bool) -> str:
    name = quoted(_typed(model.name, model.path, name_is_unique))
    content = model.content
    if content is None or content.kind != TEXT:
        return f"thriftbit inspect {name}"
    if content.container == "GGUF":
        return f"thriftbit chat {name}"
    return f"thriftbit inspect {name}" if content.declared else f"thriftbit quantize {name} --to {USUAL_LEVEL}"


def _typed(name: str, path: Path, name_is_unique: bool) -> str:
    """Return what to type for a model on this disk: its name, or its path if it is below the current folder or the name
    is not unique."""
    return from_here(path) if path.is_relative_to(Path.cwd()) or not name_is_unique else name


def hub_finding(file: HubFile, room: Room) -> Finding:
    what, known_by, bits, warning = _what_on_hub(file)
    content = file.content
    counted = content.running_bytes if content else None
    needed = counted or (estimated_need(file.size_bytes) if file.size_bytes else None)
    return Finding(
        name=file.name,
        kind=file.kind,
        what=what,
        known_by=known_by,
        size_bytes=file.size_bytes,
        bits_per_weight=bits,
        parameters=content.parameters if content else round(8 * file.size_bytes / bits) if bits else None,
        where=HUB,
        fits=room.fits(needed, _needs(what)),
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
    """Return the file's precision, how it is known, bits per weight, and a warning if the name says something else."""
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
        return label, "size and name", bits, f"called {claim.name}, but its size says {label}"
    return claim.name, "size and name" if bits else "name", bits, None


def _unpacked(file: HubFile, claim: QuantizationName) -> int | None:
    """Return how many weights a packed checkpoint has; None if that cannot be told. The Hub counts the packed numbers
    instead."""
    if file.parameters or not claim.bits_per_weight:
        return file.parameters
    packed = {"I32": 32, "U32": 32, "U8": 8}
    bits = int(claim.bits_per_weight)
    return sum(count * packed.get(dtype, bits) // bits for dtype, count in file.types) if bits else None


def _next_for_hub(file: HubFile) -> str:
    """Return a command that tells the size of a download before it begins."""
    if file.files:
        name = quoted(f"{file.repository}:{file.files[0]}")
        return f"thriftbit {'chat' if file.kind == TEXT else 'pull'} {name}"
    claim = parse_quantization(file.name)
    if file.kind == TEXT and (claim is None or claim.scheme.family.name == "float"):
        return f"thriftbit quantize {quoted(file.repository)} --to {USUAL_LEVEL}"
    return f"hf download {quoted(file.repository)}"


@dataclass(frozen=True)
class Findings:
    """local, hub: the findings, the best first; files that could not be read come last. notes: sentences on what was
    not searched, and why. room: of this computer. hub_asked: whether the Hub answered."""

    words: tuple[str, ...]
    local: tuple[Finding, ...]
    hub: tuple[Finding, ...]
    notes: tuple[str, ...]
    room: Room
    hub_answered: bool

    @property
    def next_steps(self) -> tuple[tuple[str, str], ...]:
        """(step, command) pairs: for the best model on this disk, the best ready-made file, the best original."""
        return tuple(_next_steps(self))

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"next": [{"why": why, "command": command} for why, command in self.next_steps]}

    def __repr__(self) -> str:
        return f"Findings({len(self.local)} on this disk, {len(self.hub)} on the Hub)"

    def _repr_html_(self) -> str:
        rows = [
            (
                each.name,
                each.what or "",
                describe_bytes(each.size_bytes) if each.size_bytes else "",
                each.fits,
                each.where,
            )
            for each in (*self.local, *self.hub)
        ]
        return html_table(
            " ".join(self.words) or "Models on this disk", ("name", "what it is", "size", "fits", "where"), rows
        )


def find(
    words: Sequence[str] = (),
    *,
    local: bool = False,
    offline: bool = False,
    look: bool = False,
    parts: bool = False,
) -> Findings:
    """Return models whose names or contents contain all words: on this disk and, unless `local` or `offline`, on the
    Hub. Without words, return everything on this disk.

    look: read headers on the Hub, too, some megabytes for each GGUF file. parts: return adapters, picture parts and
    other files that belong to models, too. A file or a Hub that cannot be read is no error; the findings say so."""
    words = [part for word in words for part in word.split()]
    if look and (local or offline or not words):
        raise UsageError("--look reads headers on the Hub: give words to search, and neither --local nor --offline")
    room = room_here()
    inventory = take_inventory(words)
    names = Counter(model.name for model in inventory.models)
    here = [
        local_finding(model, room, name_is_unique=names[model.name] == 1)
        for model in inventory.models
        if parts or model.is_whole
    ]
    notes = list(inventory.warnings)
    there: list[Finding] = []
    answered = False
    if words and not local and not offline:
        levels = [word for word in words if _is_level(word)]
        answer = search_hub([word for word in words if word not in levels] or words, look=look)
        there = [finding for file in answer.files if _has(levels, finding := hub_finding(file, room))]
        answered = bool(answer.files) or answer.problem is None
        notes += [answer.problem] if answer.problem else []
    return Findings(
        words=tuple(words),
        local=tuple(sorted(here, key=_order)),
        hub=tuple(sorted(there, key=_order)),
        notes=tuple(notes),
        room=room,
        hub_answered=answered,
    )


def _is_level(word: str) -> bool:
    """Return whether the word is a precision. Files have these in their names, but the Hub searches only names of
    repositories."""
    quantization = parse_quantization(word)
    return quantization is not None and (
        quantization.scheme.family.container == "GGUF" or quantization.scheme.family.name == "float"
    )


def _has(levels: Sequence[str], finding: Finding) -> bool:
    return matches(levels, f"{finding.name} {finding.what}")


def _order(finding: Finding) -> tuple[bool, bool, float, float, str]:
    """Return the key for sorting: language models come first, unreadable files last."""
    quality = expected_quality(finding.parameters, finding.bits_per_weight)
    return (finding.what is None, finding.kind != TEXT, -quality, -(finding.downloads or 0), finding.name)


def expected_quality(parameters: int | None, bits_per_weight: float | None) -> float:
    """Return a number that orders models of one family by expected quality; 0 if nothing is known."""
    if not parameters or not bits_per_weight:
        return 0.0
    return parameters * (1 - math.exp(-min(bits_per_weight, _FULL_BITS) / _GAMMA))


def _next_steps(findings: Findings) -> Iterator[tuple[str, str]]:
    local = [finding for finding in findings.local if finding.fits_here and finding.kind == TEXT]
    ready_here = [finding for finding in local if finding.can_chat]
    if best := _best_value(ready_here):
        yield "chat with the best model on this disk", best.command
    elif local and local[0].is_original:
        yield "make a file to chat with from the original on this disk", local[0].command
    ready = [finding for finding in findings.hub if finding.can_chat and finding.fits_here]
    if (best := _best_value(ready)) and 0 < (best.bits_per_weight or 0) <= _READY_BITS:
        size = describe_bytes(best.size_bytes)
        yield f"download the best ready-made one, {size}, and chat; you are asked first", best.command
    for finding in findings.hub:
        smaller = estimated_need(round(finding.size_bytes * _USUAL_SHARE))
        if finding.is_original and finding.kind == TEXT and findings.room.fits(smaller) == "yes":
            yield "make your own from the original; you see the size of the download first", finding.command
            return


def _best_value(findings: Sequence[Finding]) -> Finding | None:
    """Return the first finding with at most about 8 bits per weight, because more bits cost memory and speed without a
    visible difference. If there is none, return the first. findings: the best first."""
    small = (finding for finding in findings if 0 < (finding.bits_per_weight or 0) <= _READY_BITS)
    return next(small, findings[0] if findings else None)
