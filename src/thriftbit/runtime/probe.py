"""A minute of measuring, from which everything else about speed is predicted: `thriftbit doctor --measure`.

Memory bandwidth by number of threads, the disk, how many threads help llama.cpp under the present load, what a token
costs per layer, and for every format the rate at which llama.cpp reads and multiplies weights. The formats take turns
for what time is left, those that most files have first; whatever there was no time for is not in the profile. Nothing
is scaled from one format to another: that would be a guess.

Every number is a median with quartiles over repetitions. Files are in a temporary folder on the disk
where models are kept, one at a time, and gone at the end, also after Ctrl-C or a closed terminal.

Left out: rates of other numbers of threads than the best and one, but for two formats (what lies between is bounded by
these), and of the processor on a computer where llama.cpp computes on a GPU.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from thriftbit.containers.temporary_folder import temporary_folder
from thriftbit.errors import ThriftbitError
from thriftbit.folders import cache_folder
from thriftbit.machine.bandwidth import BandwidthProbe, beyond_caches_bytes
from thriftbit.machine.disk_speed import disk_read_rate
from thriftbit.machine.facts import Facts
from thriftbit.machine.private_files import private_folder
from thriftbit.machine.profile import Bandwidth, FormatRate, Profile, Spread, StepCost, store_profile
from thriftbit.progress import Progress, no_progress
from thriftbit.runtime.engine import engine_version
from thriftbit.runtime.examine import examine
from thriftbit.runtime.probe_model import PROBED_FORMATS, ProbeModel, layers_for, write_probe_model
from thriftbit.runtime.probe_timing import NOISE, StepProbe, Timings, format_rate, pooled, time_model
from thriftbit.runtime.thread_choice import choose_threads
from thriftbit.sizes import counted, describe_bytes

_logger = logging.getLogger(__name__)

BUDGET_SECONDS = 70.0
_DISK_SHARE, _THREADS_SHARE = 0.06, 0.1  # of the time, at most
_ROUNDS, _VISIT_SECONDS, _BESIDE_SHARE = 4, 1.2, 0.5
_DISK_BYTES = 256 << 20
_SPACE = 3  # times the size of a probe model has to be free on the disk
_COMMON = (
    "Q4_K",
    "Q8_0",
    "Q6_K",
    "Q5_K",
    "F16",
    "Q4_0",
    "BF16",
    "IQ4_XS",
    "Q3_K",
    "Q2_K",
    "Q5_0",  # what presets take instead of Q4_K where rows are no multiple of 256
    "IQ4_NL",
    "IQ3_XXS",
    "IQ2_XXS",
)
# Timed with every number of threads, and once however long all before took, as other commands need them; the common
# ones with the best number and with one.
_SCALING = ("Q4_K", "Q8_0")
_STEP_SHARE = 0.012


class CannotMeasure(ThriftbitError):  # noqa: N818 - a verdict, as UsageError's neighbour in the exit codes
    exit_code = 4


def measure_machine(
    facts: Facts | None = None,
    *,
    budget_seconds: float = BUDGET_SECONDS,
    formats: Sequence[str] | None = None,
    progress: Progress = no_progress,
) -> Profile:
    """Return what was measured of this computer, which is kept in the user's cache as well.

    facts: if they were detected already. budget_seconds: about how long it may take. formats: those to time; all that
    llama.cpp computes with by default, as time allows. progress: is told what is being done and the share of the time
    that is over. What could not be measured is logged, with the reason.
    Raises CannotMeasure if llama.cpp runs none of them, ThriftbitError if the disk is too full."""
    run = _Run(facts or examine(), budget_seconds, progress)
    profile = run.profile(formats or _in_order())
    try:
        store_profile(profile)
    except ThriftbitError as error:  # the minute was not for nothing: what was measured is shown
        _logger.warning(f"What was measured could not be kept: {error}")
    return profile


def _in_order() -> list[str]:
    return [*_COMMON, *(name for name in PROBED_FORMATS if name not in _COMMON)]


def thread_counts(usable_cores: int, physical_cores: int) -> list[int]:
    """Return 1, 2, 4, ... and the numbers of cores themselves."""
    doublings = [1 << step for step in range(usable_cores.bit_length())]
    return sorted({count for count in (*doublings, physical_cores, usable_cores) if 0 < count <= usable_cores})


@dataclass
class _Run:
    facts: Facts
    budget_seconds: float
    progress: Progress
    started: float = field(default_factory=time.monotonic)
    device: str = ""
    failures: dict[str, str] = field(default_factory=dict)

    def profile(self, formats: Sequence[str]) -> Profile:
        with temporary_folder("measuring", private_folder(cache_folder())) as folder:
            size_bytes = self._size_bytes()
            bandwidth = self._bandwidth(size_bytes)
            disk = self._disk(folder)
            threads = self._best_threads(folder, size_bytes)
            timed = [threads, *(count for count in self._other_threads(threads) if count == 1)]
            steps = self._step_costs(folder, size_bytes, timed)
            rates = self._rates(folder, size_bytes, threads, steps, formats)
        if not rates:
            raise CannotMeasure(f"nothing could be measured: {next(iter(self.failures.values()), 'there was no time')}")
        for name, reason in self.failures.items():
            _logger.warning(f"Not measured: {name} ({reason})")
        return Profile(
            facts=self.facts,
            bandwidth=bandwidth,
            rates=tuple(rates),
            step_costs=steps,
            disk_read_bytes_per_second=disk,
            best_threads=threads,
            measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
            engine=engine_version(),
            device=self.device,
            busy_cores=self.facts.load.busy_cores.value,
        )

    def _size_bytes(self) -> int:
        memory, processor = self.facts.memory, self.facts.processor
        size_bytes = beyond_caches_bytes(processor.cache_bytes.value, memory.available_bytes.value)
        free_bytes = self.facts.disk.free_bytes.value
        if free_bytes is not None and free_bytes < _SPACE * size_bytes:
            raise ThriftbitError(
                f"measuring takes {describe_bytes(_SPACE * size_bytes)} of disk space for a minute, and "
                f"{describe_bytes(free_bytes)} are free; free some, or set THRIFTBIT_CACHE to a folder on another disk"
            )
        return size_bytes

    def _bandwidth(self, size_bytes: int) -> tuple[Bandwidth, ...]:
        processor = self.facts.processor
        usable = max(1, int(processor.usable_cores.value or processor.logical_cores.value or 1))
        counts = thread_counts(usable, processor.physical_cores.value or usable)
        probe = BandwidthProbe(size_bytes)
        found = []
        for threads in counts:
            self._tell(f"memory, {_threads(threads)}")
            found.append(probe.measure(threads))
        return tuple(found)

    def _disk(self, folder: Path) -> Spread | None:
        self._tell("disk")
        if self.facts.disk.kind.value == "memory":
            return None
        return disk_read_rate(folder, _DISK_BYTES, _DISK_SHARE * self.budget_seconds)

    def _best_threads(self, folder: Path, size_bytes: int) -> int:
        self._tell("trying numbers of threads")
        model = write_probe_model(folder / "threads.gguf", _COMMON[0], layers_for(_COMMON[0], size_bytes))
        try:
            return choose_threads(model.path, patience_seconds=_THREADS_SHARE * self.budget_seconds)
        except ThriftbitError as error:
            raise CannotMeasure(str(error)) from None
        finally:
            model.path.unlink()

    def _step_costs(self, folder: Path, size_bytes: int, threads: Sequence[int]) -> tuple[StepCost, ...]:
        costs = []
        with StepProbe(folder, size_bytes) as probe:
            for count in threads:
                label = f"cost of a layer with {_threads(count)}"
                try:
                    cost = probe.measure(count, _STEP_SHARE * self.budget_seconds, partial(self._tell, label))
                except ThriftbitError as error:
                    self.failures[label] = str(error)
                    continue
                if cost is None:
                    self.failures[label] = NOISE
                else:
                    costs.append(cost)
        return tuple(costs)

    def _rates(
        self, folder: Path, size_bytes: int, threads: int, steps: Sequence[StepCost], formats: Sequence[str]
    ) -> list[FormatRate]:
        """Return the speeds, measured in rounds, because other programs may slow down one visit and not the next."""
        visits: dict[tuple[str, int], list[tuple[ProbeModel, Timings]]] = {}
        for name, counts in self._first_round(threads, formats) * _ROUNDS:
            counts = [count for count in counts if _label(name, count) not in self.failures]
            over = self._elapsed() + len(counts) * _VISIT_SECONDS > self.budget_seconds
            if not counts or (over and (name not in _SCALING or (name, threads) in visits)):
                continue
            self._tell(_label(name, counts[0]))
            model = write_probe_model(folder / "rate.gguf", name, layers_for(name, size_bytes))
            try:
                for count in counts:
                    self._visit(visits, model, count, _VISIT_SECONDS * (1 if count == threads else _BESIDE_SHARE))
            finally:
                model.path.unlink()
        return [
            format_rate(found[0][0], count, pooled(timings for _, timings in found), _cost_with(steps, count))
            for (_, count), found in visits.items()
        ]

    def _first_round(self, threads: int, formats: Sequence[str]) -> list[tuple[str, list[int]]]:
        """Return formats, and the numbers of threads that each is timed with while its file is there."""
        others = self._other_threads(threads)
        single = [count for count in others if count == 1]
        return [
            (name, [threads, *(others if name in _SCALING else single if name in _COMMON else ())]) for name in formats
        ]

    def _visit(
        self,
        visits: dict[tuple[str, int], list[tuple[ProbeModel, Timings]]],
        model: ProbeModel,
        threads: int,
        seconds: float,
    ) -> None:
        try:
            timings = time_model(model, threads, seconds)
        except ThriftbitError as error:
            self.failures[_label(model.format, threads)] = str(error)
            return
        self.device = timings.device
        visits.setdefault((model.format, threads), []).append((model, timings))

    def _other_threads(self, threads: int) -> list[int]:
        """Return numbers of threads that there are cores for, and that nobody else keeps busy."""
        processor, busy = self.facts.processor, self.facts.load.busy_cores.value or 0.0
        usable = int(processor.usable_cores.value or processor.logical_cores.value or 1)
        idle = max(threads, usable - round(busy))
        counts = thread_counts(usable, processor.physical_cores.value or usable)
        return [count for count in counts if count <= idle and count != threads]

    def _tell(self, what: str) -> None:
        self.progress(what, min(1.0, self._elapsed() / self.budget_seconds))

    def _elapsed(self) -> float:
        return time.monotonic() - self.started


def _cost_with(steps: Sequence[StepCost], threads: int) -> StepCost | None:
    return next((cost for cost in steps if cost.threads == threads), None)


def _label(format_name: str, threads: int) -> str:
    return f"{format_name} with {_threads(threads)}"


def _threads(count: int) -> str:
    return counted(count, "thread")
