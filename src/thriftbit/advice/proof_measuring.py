"""What a proof measures of one file: how fast it writes here, and what it loses. Old measurements are found again.

Speed is measured with the context that was asked for in memory and 512 tokens of text, in at least three turns, each in
a process of its own. Loss is the rise of perplexity on the four texts in the box, in rounds, until the interval lies on
one side of the limit or the time is over. What other programs computed meanwhile is kept with the speed.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from thriftbit.advice.fit import computer_profile
from thriftbit.advice.made_files import MadeFile
from thriftbit.advice.promises import OPEN, Tried
from thriftbit.advice.wishes import Wishes
from thriftbit.errors import ThriftbitError
from thriftbit.machine.identity import describe_machine
from thriftbit.measurement.material import gather
from thriftbit.measurement.measure import missing_extra
from thriftbit.measurement.measurement import Measurement
from thriftbit.measurement.speed import SpeedSettings, measure_speed
from thriftbit.measurement.statistics import decide
from thriftbit.measurement.store import append, read, store_path
from thriftbit.measurement.subject import describe_subject
from thriftbit.measurement.texts import DOMAINS, read_text
from thriftbit.progress import Progress, part_of
from thriftbit.sources.model import Model
from thriftbit.sources.open_model import open_as_it_is

_logger = logging.getLogger(__name__)

SPEED_SECONDS, LOSS_SECONDS = 20.0, 120.0
_PATIENCE = 3  # times the seconds, where the first measurement leaves it open
_TEXT_TOKENS, _WRITTEN_TOKENS, _WINDOW_TOKENS = 512, 64, 512
_LEAST_ROUNDS = 2
DISTURBED, _QUIET = 0.5, 0.25  # cores that other programs use
BUSY = "busy_cores"  # in a row's detail


@dataclass(frozen=True)
class Measuring:
    """model: the original. context_tokens: that files run with. longest_tokens: that the model was made for, 0 where
    that is not known. command: what to type to measure it again."""

    model: Model
    wishes: Wishes
    context_tokens: int
    longest_tokens: int
    command: str

    def known(self, preset: str, made: MadeFile) -> Tried | None:
        """Return what was measured of the file here before, with these settings; None where something is missing, or a
        speed that a busy computer gave could be measured better now."""
        rows = [row for row in _stored() if row.subject.fingerprint == made.fingerprint and row.value is not None]
        speeds = [row for row in rows if self._is_this_speed(row)]
        losses = [row for row in rows if self._is_this_loss(row)]
        if not speeds or (self.wishes.max_loss is not None and not losses):
            return None
        speed = max(speeds, key=lambda row: row.time)
        if speed.detail.get(BUSY, 0.0) >= DISTURBED and psutil.cpu_percent(0.3) / 100 * _cores() < _QUIET:
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
        context = max(self.context_tokens, _WRITTEN_TOKENS + 2)
        prompt = min(_TEXT_TOKENS, context - _WRITTEN_TOKENS)
        threads = profile.best_threads
        return SpeedSettings(prompt, _WRITTEN_TOKENS, context, threads, seconds)

    def speed(self, path: Path, progress: Progress) -> Measurement:
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

    def loss(self, path: Path, progress: Progress) -> Measurement | None:
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
        return min(_WINDOW_TOKENS, self.longest_tokens or _WINDOW_TOKENS)


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
