"""How fast files run here, and how much memory and energy they take, alone and beside the original.

The files take turns, one repetition each, in the order of the list and then in the reverse order. What changes
meanwhile (the processor gets warm, somebody starts a program) changes for all of them, so the paired ratios are free of
it. There are as many turns as time allows, but three at least, unless one turn alone takes longer than the whole time.

Ctrl-C ends it as the end of the time does: what is known becomes rows, and then KeyboardInterrupt is raised again. Left
out: the speed of the disk. Every file is read once before it is timed, so it comes from the system's cache if there is
room. The first load after the computer has started waits for the disk.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from thriftbit.errors import ThriftbitError, UsageError
from thriftbit.measurement.circumstances import engine_circumstances
from thriftbit.measurement.energy import EnergyMeter, find_meter
from thriftbit.measurement.measurement import Measurement, Scalar, Subject
from thriftbit.measurement.repetition import Reason, Repetition, Workload, ordinary_tokens, repeat, try_out
from thriftbit.measurement.speed_rows import Measured, speed_rows
from thriftbit.progress import Progress, no_progress
from thriftbit.runtime.engine import CPU
from thriftbit.runtime.thread_choice import choose_threads

FEWEST_TURNS = 3
_SHARE_FOR_THREADS = 0.2  # of the time, for finding their number
_PATIENCE = 3  # an answer may take so many times the time there is


@dataclass(frozen=True)
class SpeedSettings:
    """prompt_tokens, generated_tokens: of each repetition. context_tokens: room for both, which takes memory whether it
    is used or not; less if the model has less. threads: found by trying if None. budget_seconds: for everything; a few
    turns are taken even so. most_turns: that are taken though there is time for more."""

    prompt_tokens: int = 256
    generated_tokens: int = 64
    context_tokens: int = 2048
    threads: int | None = None
    budget_seconds: float = 60.0
    most_turns: int = 12

    def __post_init__(self) -> None:
        if self.prompt_tokens < 1 or self.generated_tokens < 2:
            raise UsageError("speed needs a prompt of at least 1 token and an answer of at least 2")
        if self.prompt_tokens + self.generated_tokens > self.context_tokens:
            raise UsageError(
                f"a prompt of {self.prompt_tokens} tokens and an answer of {self.generated_tokens} do not fit into a "
                f"context of {self.context_tokens}"
            )


def measure_speed(
    files: Sequence[tuple[Path, Subject]],
    original: tuple[Path, Subject] | None = None,
    settings: SpeedSettings | None = None,
    *,
    command: str = "",
    progress: Progress = no_progress,
) -> Iterator[Measurement]:
    """Return rows of load_time, first_token_time, prefill_rate, decode_rate, energy_per_token, peak_memory,
    peak_gpu_memory and file_size for every file and the original, and the ratios of those that have one.

    files, original: GGUFs, and what rows call them. command: what to type to measure it again. progress: is told what
    is being done, and the share of the time that is over. A file that cannot be run has rows without values that say
    why. Rows of sizes come at once, the others together at the end, or at Ctrl-C, which is raised again after them.
    """
    run = _Run(settings or SpeedSettings(), progress)
    candidates = [_Candidate(path, subject) for path, subject in [*([original] if original else []), *files]]
    reference = candidates[0] if original else None
    circumstances = engine_circumstances(command)
    for each in candidates:
        yield Measurement(what="file_size", value=each.subject.size_bytes, subject=each.subject, **circumstances)
    interrupt: KeyboardInterrupt | None = None
    try:
        run.prepare(candidates)
        run.take_turns(candidates)
    except KeyboardInterrupt as caught:
        interrupt = caught
    for each in candidates:
        if each.failure or each.repetitions:
            against = reference.measured() if reference and each is not reference else None
            yield from speed_rows(each.measured(), against, run.row_settings(), run.energy_of, circumstances)
    if interrupt:
        raise interrupt


def is_enough(turns: int, turn_seconds: float, left_seconds: float, settings: SpeedSettings) -> bool:
    """Return whether that many turns are to be all. turn_seconds: that the last one took."""
    if turns >= settings.most_turns:
        return True
    return turn_seconds > (settings.budget_seconds if turns < FEWEST_TURNS else left_seconds)


@dataclass
class _Candidate:
    path: Path
    subject: Subject
    prompt: Sequence[int] = ()
    context_tokens: int = 0  # that the model has
    repetitions: list[Repetition] = field(default_factory=list)
    failure: str = ""

    @contextmanager
    def failing(self) -> Iterator[None]:
        """A ThriftbitError inside becomes the reason why this file cannot be measured"""
        try:
            yield
        except ThriftbitError as error:
            self.failure = str(error)

    def measured(self) -> Measured:
        return Measured(self.subject, self.repetitions, self.failure)


class _Run:
    """What one call of `measure_speed` decides for all files."""

    def __init__(self, settings: SpeedSettings, progress: Progress) -> None:
        self._settings = settings
        self._progress = progress
        self._started = time.monotonic()
        self._context_tokens = settings.context_tokens
        self._threads = settings.threads or 0
        self._meter: EnergyMeter | Reason = "not measurable here: nothing was run"
        self._device = ""

    @property
    def energy_of(self) -> str:
        return "" if isinstance(self._meter, Reason) else self._meter.covers()

    def row_settings(self) -> dict[str, Scalar]:
        return {
            "prompt_tokens": self._settings.prompt_tokens,
            "generated_tokens": self._settings.generated_tokens,
            "context_tokens": self._context_tokens,
            "threads": self._threads,
            "device": self._device,
        }

    def prepare(self, candidates: Sequence[_Candidate]) -> None:
        """Finds out what fails, how many threads are best, what computes and what counts energy"""
        needed = self._settings.prompt_tokens + self._settings.generated_tokens
        for each in candidates:
            with each.failing():
                each.prompt, each.context_tokens = ordinary_tokens(each.path, self._settings.prompt_tokens)
                if each.context_tokens < needed:
                    raise ThriftbitError(
                        f"{each.path}: has a context of {each.context_tokens} tokens, and not of {needed}"
                    )
        self._context_tokens = min([self._context_tokens, *(each.context_tokens for each in _alive(candidates))])
        self._choose_threads(candidates)
        for each in _alive(candidates):
            self._tell(f"trying {each.subject.name}")
            with each.failing():
                self._device = try_out(each.path, self._workload(each))
        self._meter = self._find_meter(len(candidates))

    def take_turns(self, candidates: Sequence[_Candidate]) -> None:
        for turn in count():
            turn_started = time.monotonic()
            for each in _alive(candidates)[:: -1 if turn % 2 else 1]:
                self._tell(f"{each.subject.name}, turn {turn + 1}")
                with each.failing():
                    each.repetitions.append(repeat(each.path, self._workload(each)))
            left_seconds = self._settings.budget_seconds - self._elapsed()
            turn_seconds = time.monotonic() - turn_started
            if not _alive(candidates) or is_enough(turn + 1, turn_seconds, left_seconds, self._settings):
                break

    def _choose_threads(self, candidates: Sequence[_Candidate]) -> None:
        patience = _SHARE_FOR_THREADS * self._settings.budget_seconds
        for smallest in sorted(_alive(candidates), key=lambda each: each.subject.size_bytes):
            if self._threads:
                break
            self._tell("trying numbers of threads")
            with smallest.failing():
                self._threads = choose_threads(smallest.path, patience_seconds=patience)

    def _find_meter(self, files: int) -> EnergyMeter | Reason:
        try:
            meter = find_meter(uses_gpu=self._device not in ("", CPU))
        except ThriftbitError as error:
            return str(error)
        needed_seconds = FEWEST_TURNS * files * meter.shortest_seconds
        if needed_seconds > self._settings.budget_seconds:
            return (
                f"not measurable here in {self._settings.budget_seconds:.0f} s: the energy counter of {meter.covers()} "
                f"is coarse; give the measurement {2 * needed_seconds:.0f} s"
            )
        return meter

    def _workload(self, candidate: _Candidate) -> Workload:
        return Workload(
            prompt=candidate.prompt,
            generated_tokens=self._settings.generated_tokens,
            context_tokens=self._context_tokens,
            threads=self._threads,
            longest_seconds=_PATIENCE * self._settings.budget_seconds,
            meter=self._meter,
        )

    def _tell(self, what: str) -> None:
        self._progress(what, min(1.0, self._elapsed() / self._settings.budget_seconds))

    def _elapsed(self) -> float:
        return time.monotonic() - self._started


def _alive(candidates: Sequence[_Candidate]) -> list[_Candidate]:
    return [each for each in candidates if not each.failure]
