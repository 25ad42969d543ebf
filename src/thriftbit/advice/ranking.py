"""`thriftbit fit` without a model: those that are on this disk already, the best for this computer first.

Each GGUF is taken as it is. The loss of a file from elsewhere is rarely known, so the order follows simple rules: files
that fit come before those that do not, fast enough ones before slower ones, more parameters before fewer, and then more
bits per weight before fewer, up to Q8_0. Files with more bits than Q8_0 come after that, because they take twice the
memory and time and answer alike."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from thriftbit.advice.fit import computer_for, computer_profile
from thriftbit.advice.losses import Evidence
from thriftbit.advice.options import Computer, Option, all_options, levels_of
from thriftbit.advice.wishes import Wishes
from thriftbit.errors import ThriftbitError
from thriftbit.library.inventory import take_inventory
from thriftbit.sources.remote import open_outline

_LAVISH_BITS = 9.0


@dataclass(frozen=True)
class Ranked:
    """A file on this disk. name: as people know it. option: its size, memory and speed here; None if it could not be
    described, and `problem` says why."""

    name: str
    path: Path
    level: str
    parameters: int
    option: Option | None
    problem: str = ""

    @property
    def fits(self) -> bool:
        return self.option is not None and self.option.fits


def rank_local(
    wishes: Wishes, *, machine: str | Path | None = None, paths: Iterable[Path] | None = None
) -> list[Ranked]:
    """Return GGUF files on this disk, the best first. paths: of the files; None means all that are found."""
    profile, is_here = computer_profile(machine)
    computer = computer_for(profile, is_here, wishes)
    found = [(path.name, path, "") for path in paths] if paths is not None else _on_this_disk()
    ranked = [_ranked(name, path, level, computer, wishes) for name, path, level in found]
    return sorted(ranked, key=lambda each: _order(each, wishes))


def _on_this_disk() -> list[tuple[str, Path, str]]:
    """Return the name, the path and the true precision of every GGUF with a whole model. Copies are listed once."""
    models = take_inventory().models
    return [
        (model.name, model.path, model.label or "")
        for model in models
        if model.can_chat and model.problem is None and model.path.is_file()
    ]


def _ranked(name: str, path: Path, level: str, computer: Computer, wishes: Wishes) -> Ranked:
    try:
        outline = open_outline(path)
        # a file in full precision is listed as it is, not as what could be made of it
        levels = levels_of(outline, as_it_is=True)
        options = all_options(outline, computer, wishes, Evidence((), "", wishes.domain), levels)
    except ThriftbitError as error:
        return Ranked(name, path, level, 0, None, str(error))
    return Ranked(name, path, level or options[0].name, outline.model.parameters, options[0])


def _order(each: Ranked, wishes: Wishes) -> tuple[bool, bool, float, bool, float]:
    option = each.option
    if option is None:
        return True, True, 0.0, True, 0.0
    fast = option.speed.value is None or option.speed.value >= wishes.speed
    lavish = option.bits_per_weight > _LAVISH_BITS
    return not option.fits, not fast, -each.parameters, lavish, -option.bits_per_weight
