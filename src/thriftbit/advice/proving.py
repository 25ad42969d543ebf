"""`thriftbit quantize --prove`: the file that the prediction names is made and measured, and the next where it misses.

A prediction is quick and may be wrong; a measurement is sure and takes a file and minutes. So the prediction chooses,
the measurement judges, and what was measured predicts the next file (`promises.py`). In the usual case that takes one
file or two. All are made in a temporary folder; the one that meets the wishes, or comes nearest, gets its name at the
end, and the others are gone. What was measured is kept (`made_files.py`), so the same question is answered at once.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from thriftbit.advice.fit import Advice, fit
from thriftbit.advice.made_files import MadeFile, Recipe, made_before, remember
from thriftbit.advice.options import Option
from thriftbit.advice.promises import MET, Tried, nearest, next_to_try
from thriftbit.advice.proof_measuring import Measuring
from thriftbit.advice.wishes import Wishes
from thriftbit.advice.wording import reason
from thriftbit.containers.atomic_file import check_target
from thriftbit.containers.temporary_folder import temporary_folder
from thriftbit.errors import ThriftbitError, UsageError
from thriftbit.measurement.circumstances import circumstances
from thriftbit.measurement.measure import CannotMeasureError, missing_extra
from thriftbit.measurement.subject import describe_subject
from thriftbit.progress import Progress, no_progress, part_of
from thriftbit.quantization.plan import Plan, make_plan
from thriftbit.quantization.presets import PRESETS
from thriftbit.quantization.quantize import quantize
from thriftbit.quantization.weight_error import weight_errors
from thriftbit.sources.gguf_source import read_parts
from thriftbit.sources.model import Model
from thriftbit.sources.open_model import open_as_it_is

_logger = logging.getLogger(__name__)

MOST_FILES = 4
Make = Callable[[Model, Plan, Path, Progress], object]


@dataclass(frozen=True)
class Proof:
    """verdict: "met", "missed", or "open" where a longer measurement would be needed. chosen: that meets the wishes, or
    comes nearest. path: of its file. tried: all that were measured, in order. made: how many files were made now."""

    wishes: Wishes
    verdict: str
    chosen: Tried
    path: Path
    tried: tuple[Tried, ...]
    made: int
    seconds: float


def prove(
    model: Model,
    wishes: Wishes,
    *,
    effort: str = "plain",
    make: Make | None = None,
    output: Path | None = None,
    name: str = "",
    force: bool = False,
    command: str = "",
    progress: Progress = no_progress,
) -> Proof:
    """model: in full precision. wishes: at least a speed or a loss. effort: how `make` rounds, which writes a file; by
    default block by block. output: the file; by default NAME-PRESET.gguf. force: it may replace another file. command:
    what to type to measure it again.

    Raises UsageError without a wish, CannotMeasureError where a loss was wished and torch is missing, and
    ThriftbitError for a model of which nothing fits here."""
    if wishes.min_speed is None and wishes.max_loss is None:
        raise UsageError("--prove proves a wish: give --min-speed, --max-loss or both")
    if wishes.max_loss is not None and (missing := missing_extra()):
        raise CannotMeasureError(f"--prove --max-loss measures the loss, which needs {missing}")
    advice = fit(model.source, wishes, offline=True)
    options = [option for option in advice.options if _can_be_made(option, effort)]
    if not options:
        raise ThriftbitError(f"{model.source}: {reason(advice)}")
    place = (output or Path()).resolve().parent if output else Path.cwd()
    shape = advice.options[0].shape
    measuring = Measuring(model, wishes, advice.context_tokens, shape.context_tokens, command)
    with temporary_folder("proof", place) as folder:
        proving = _Proving(
            model, wishes, advice, options, effort, make or _plain, output, name, force, measuring, folder
        )
        return proving.run(progress)


def _can_be_made(option: Option, effort: str) -> bool:
    if option.name not in PRESETS or option.native or not option.fits:
        return False
    return effort != "plain" or not PRESETS[option.name].wants_importance


def _plain(model: Model, plan: Plan, path: Path, progress: Progress) -> None:
    quantize(model, plan, path, progress=progress)


@dataclass
class _Proving:
    model: Model
    wishes: Wishes
    advice: Advice
    options: Sequence[Option]
    effort: str
    make: Make
    output: Path | None
    name: str
    force: bool
    measuring: Measuring
    folder: Path
    made: int = 0

    def run(self, progress: Progress) -> Proof:
        started = time.monotonic()
        tried: list[Tried] = []
        errors: dict[str, float] = {}
        named = self.advice.choice.option if self.advice.choice.option in self.options else None
        while option := next_to_try(self.options, named, tried, self.wishes, errors):
            check_target(self._target(option.name), self._target(option.name), self.force or self._is_here(option.name))
            tried.append(self._try(option, len(tried), progress))
            if tried[-1].verdict(self.wishes) == MET or len(tried) == MOST_FILES:
                break
            self._keep_only(nearest(tried, self.wishes))
            if not errors and tried[-1].loss is not None:
                names = [each.name for each in self.options]
                errors = weight_errors(
                    self.model, names, part_of(progress, 0, 1, "comparing the weights of all levels")
                )
        best = nearest(tried, self.wishes)
        path = self._finish(best, progress)
        seconds = time.monotonic() - started
        return Proof(self.wishes, best.verdict(self.wishes), best, path, tuple(tried), self.made, seconds)

    def _try(self, option: Option, number: int, progress: Progress) -> Tried:
        recipe = self._recipe(option.name)
        made = made_before(recipe)
        known = made and self.measuring.known(option.name, made)
        if known:
            _logger.info(f"{option.name} was measured here before.")
            return known
        _logger.info(
            f"{option.name} is {'named by the prediction' if number == 0 else 'next'}: it is made and measured."
        )
        path = self._file(option.name, progress)
        subject = describe_subject(open_as_it_is(path))
        remember(MadeFile(recipe, subject.fingerprint, subject.size_bytes))
        speed = self.measuring.speed(path, progress)
        loss = self.measuring.loss(path, progress)
        return Tried(option.name, subject.fingerprint, subject.size_bytes, speed, loss)

    def _file(self, preset: str, progress: Progress) -> Path:
        """Return the file of a preset: one that is here already, or a new one in the temporary folder."""
        if self._is_here(preset):
            return self._target(preset)
        path = self.folder / self._target(preset).name
        if not path.is_file():
            plan = make_plan(self.model, preset, importance=self.effort != "plain")
            self.make(self.model, plan, path, part_of(progress, 0, 1, f"making {preset}"))
            self.made += 1
        return path

    def _target(self, preset: str) -> Path:
        return self.output or Path(f"{self.name or Path(self.model.source).name}-{preset}.gguf")

    def _is_here(self, preset: str) -> bool:
        """Return whether the file has its name already, made of this model in this way."""
        made, path = made_before(self._recipe(preset)), self._target(preset)
        if made is None or not path.is_file():
            return False
        try:
            return open_as_it_is(path).fingerprint == made.fingerprint and _source_of(path) == self.model.fingerprint
        except (ThriftbitError, OSError):
            return False

    def _recipe(self, preset: str) -> Recipe:
        return Recipe(self.model.fingerprint, preset, self.effort, circumstances("", ())["versions"]["thriftbit"])

    def _keep_only(self, best: Tried) -> None:
        """Removes files that are not the nearest: models are large."""
        for path in self.folder.glob("*.gguf"):
            if path.name != self._target(best.preset).name:
                path.unlink()

    def _finish(self, best: Tried, progress: Progress) -> Path:
        path, target = self._file(best.preset, progress), self._target(best.preset)
        if path != target:
            check_target(target, target, self.force)
            path.replace(target)
        return target


def _source_of(path: Path) -> object:
    return read_parts(path)[0].metadata.get("thriftbit.source.fingerprint")
