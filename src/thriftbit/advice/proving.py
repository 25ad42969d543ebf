"""`thriftbit quantize --prove`: the file that the prediction names is made and measured, and the next where it misses.

A prediction is quick and may be wrong; a measurement is sure and takes a file and minutes. So the prediction chooses,
the measurement judges, and what was measured predicts the next file (`promises.py`). In the usual case that takes one
file or two. All are made in a temporary folder; the one that meets the wishes, or comes nearest, gets its name at the
end, and the others are gone. What was measured is kept (`made_files.py`), so the same question is answered at once.

Speed is measured with the context that was asked for in memory and 512 tokens of text, in at least three turns, each in
a process of its own. Loss is the rise of perplexity on the four texts in the box, in rounds, until the interval lies on
one side of the limit or the time is over.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

import thriftbit
from thriftbit.advice.fit import Advice, computer_profile, fit
from thriftbit.advice.made_files import MadeFile, Recipe, made_before, remember
from thriftbit.advice.options import Option
from thriftbit.advice.promises import MET, OPEN, Tried, nearest, next_to_try
from thriftbit.advice.wishes import Wishes
from thriftbit.advice.wording import reason
from thriftbit.containers.atomic_file import check_target
from thriftbit.containers.temporary_folder import temporary_folder
from thriftbit.errors import ThriftbitError, UsageError
from thriftbit.machine.identity import describe_machine
from thriftbit.measurement.material import gather
from thriftbit.measurement.measure import CannotMeasureError, missing_extra
from thriftbit.measurement.measurement import Measurement
from thriftbit.measurement.speed import SpeedSettings, measure_speed
from thriftbit.measurement.statistics import decide
from thriftbit.measurement.store import append, read, store_path
from thriftbit.measurement.subject import describe_subject
from thriftbit.measurement.texts import DOMAINS, read_text
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
SPEED_SECONDS, LOSS_SECONDS = 20.0, 120.0
_PATIENCE = 3  # times the seconds, where the first measurement leaves it open
_TEXT_TOKENS, _WRITTEN_TOKENS, _WINDOW_TOKENS = 512, 64, 512
_LEAST_ROUNDS = 2
DISTURBED, QUIET = 0.5, 0.25  # cores that other programs used
BUSY = "busy_cores"  # in a row's detail

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
    with temporary_folder("proof", place) as folder:
        proving = _Proving(model, wishes, advice, options, effort, make or _plain, output, name, force, command, folder)
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
    command: str
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
        known = made and self._known(option.name, made)
        if known:
            _logger.info(f"{option.name} was measured here before.")
            return known
        _logger.info(
            f"{option.name} is {'named by the prediction' if number == 0 else 'next'}: it is made and measured."
        )
        path = self._file(option.name, progress)
        subject = describe_subject(open_as_it_is(path))
        remember(MadeFile(recipe, subject.fingerprint, subject.size_bytes))
        speed = self._speed(path, progress)
        loss = self._loss(path, progress)
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
        return Recipe(self.model.fingerprint, preset, self.effort, thriftbit.__version__)

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

    # ------------------------------------------------------------ what is measured

    def _known(self, preset: str, made: MadeFile) -> Tried | None:
        """Return what was measured of the file here before, with these settings; None where something is missing, or a
        speed that a busy computer gave could be measured better now."""
        rows = [row for row in _stored() if row.subject.fingerprint == made.fingerprint and row.value is not None]
        speeds = [row for row in rows if self._is_this_speed(row)]
        losses = [row for row in rows if self._is_this_loss(row)]
        if not speeds or (self.wishes.max_loss is not None and not losses):
            return None
        speed = max(speeds, key=lambda row: row.time)
        if speed.detail.get(BUSY, 0.0) >= DISTURBED and psutil.cpu_percent(0.3) / 100 * _cores() < QUIET:
            return None
        loss = max(losses, key=lambda row: row.time, default=None)
        return Tried(preset, made.fingerprint, made.size_bytes, speed, loss, was_known=True)

    def _is_this_speed(self, row: Measurement) -> bool:
        wanted = self._speed_settings(SPEED_SECONDS)
        return (
            row.what == "decode_rate"
            and row.machine == describe_machine()
            and BUSY in row.detail
            and row.settings.get("prompt_tokens") == wanted.prompt_tokens
            and row.settings.get("context_tokens") == wanted.context_tokens
        )

    def _is_this_loss(self, row: Measurement) -> bool:
        return (
            row.what == "perplexity_ratio"
            and row.against is not None
            and row.against.fingerprint == self.model.fingerprint
            and row.settings.get("domain") == "all"
            and row.settings.get("context_tokens") == self._window_tokens()
        )

    def _speed_settings(self, seconds: float) -> SpeedSettings:
        profile, _ = computer_profile(None)
        context = max(self.advice.context_tokens, _WRITTEN_TOKENS + 2)
        prompt = min(_TEXT_TOKENS, context - _WRITTEN_TOKENS)
        threads = profile.best_threads
        return SpeedSettings(prompt, _WRITTEN_TOKENS, context, threads, seconds)

    def _speed(self, path: Path, progress: Progress) -> Measurement:
        """Return the row of the speed, measured longer where the first time leaves it open whether the wish is met."""
        found = self._speed_in(path, SPEED_SECONDS, progress)
        subject = found.subject
        tried = Tried("", subject.fingerprint, subject.size_bytes, found, None)
        if found.value is not None and tried.of_speed(self.wishes) == OPEN:
            found = self._speed_in(path, _PATIENCE * SPEED_SECONDS, progress)
        return found

    def _speed_in(self, path: Path, seconds: float, progress: Progress) -> Measurement:
        subject = describe_subject(open_as_it_is(path))
        before = _Load.now()
        rows = list(
            measure_speed(
                [(path, subject)],
                settings=self._speed_settings(seconds),
                command=self.command,
                progress=part_of(progress, 0, 1, f"measuring the speed of {path.stem}"),
            )
        )
        others = before.others_until(_Load.now())
        rows = [replace(row, detail={**row.detail, BUSY: others}) if row.what == "decode_rate" else row for row in rows]
        _keep(rows)
        return next(row for row in rows if row.what == "decode_rate")

    def _loss(self, path: Path, progress: Progress) -> Measurement | None:
        """Return the row of the loss over all texts; None where torch is missing and no loss was wished."""
        if missing_extra():
            return None
        file = open_as_it_is(path)
        texts = [read_text(name) for name in DOMAINS]
        material = gather(self.model, texts, [], self._window_tokens())
        from thriftbit.measurement.accuracy import measure_accuracy

        rounds = measure_accuracy(
            [file],
            self.model,
            material,
            budget_seconds=LOSS_SECONDS,
            command=self.command,
            progress=part_of(progress, 0, 1, f"measuring the loss of {path.stem}"),
        )
        rows: list[Measurement] = []
        try:
            for number, newer in enumerate(rounds, 1):
                rows = newer
                if number >= _LEAST_ROUNDS and self._is_decided(rows):
                    break
        finally:
            _keep(rows)
        return _total(rows)

    def _is_decided(self, rows: Sequence[Measurement]) -> bool:
        row = _total(rows)
        limit = self.wishes.max_loss
        return limit is None or decide(row.low, row.high, 1 + limit) in ("yes", "no")

    def _window_tokens(self) -> int:
        longest = self.advice.options[0].shape.context_tokens or _WINDOW_TOKENS
        return min(_WINDOW_TOKENS, longest)


@dataclass(frozen=True)
class _Load:
    """Seconds: by the clock; that all cores were busy; that this process and those it started and ended computed."""

    seconds: float
    busy: float
    own: float

    @classmethod
    def now(cls) -> _Load:
        times, own = psutil.cpu_times(), psutil.Process().cpu_times()
        busy = sum(getattr(times, name, 0.0) for name in ("user", "nice", "system", "irq", "softirq", "steal"))
        children = getattr(own, "children_user", 0.0) + getattr(own, "children_system", 0.0)
        return cls(time.monotonic(), busy, own.user + own.system + children)

    def others_until(self, later: _Load) -> float:
        """Return how many cores other programs used; 0 where the system does not count ended children (Windows)."""
        if sys.platform == "win32" or later.seconds <= self.seconds:
            return 0.0
        used = later.busy - self.busy - (later.own - self.own)
        return round(max(0.0, used / (later.seconds - self.seconds)), 2)


def _total(rows: Sequence[Measurement]) -> Measurement:
    """Return the ratio of perplexities over all texts, which is the last one."""
    return [row for row in rows if row.what == "perplexity_ratio"][-1]


def _keep(rows: Sequence[Measurement]) -> None:
    """Keeps rows for the next time; where that cannot be done, it is told, and the proof goes on."""
    try:
        append(rows)
    except ThriftbitError as error:
        _logger.warning(str(error))


def _stored() -> Iterator[Measurement]:
    if store_path().is_file():
        yield from read(store_path())[0]


def _cores() -> int:
    return psutil.cpu_count() or 1


def _source_of(path: Path) -> object:
    return read_parts(path)[0].metadata.get("thriftbit.source.fingerprint")
