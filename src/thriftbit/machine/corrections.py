"""What real runs showed of earlier predictions, kept beside the profile, so that the next prediction is better.

Each entry has a prediction before any correction, and what was measured then. The factor between the two is a property
of the machine that the profile missed: a memory that is slower for real models, or other programs that always run. The
median of these factors corrects later predictions, and the distance of single runs from it gives the interval. A few
runs correct little: the factor is drawn towards one, and the interval towards the one without any runs.

A bad line is passed over. Left out: factors for single models or formats, because there are never enough runs.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from filelock import FileLock

from thriftbit.containers.atomic_file import PRIVATE_MODE
from thriftbit.containers.regular_files import read_regular
from thriftbit.errors import ThriftbitError
from thriftbit.folders import cache_folder
from thriftbit.machine.private_files import open_private, private_folder
from thriftbit.machine.profile import Profile
from thriftbit.machine.records import from_document

_NEWEST = 50  # runs; a machine changes
_WEIGHT_OF_NONE = 2  # counts as that many runs without an error
_ASSUMED_ERROR = 0.25  # nine times in ten, before anything was run
_COVERED = 0.9
_LARGEST_BYTES = 64 << 20


@dataclass(frozen=True)
class Run:
    """what: "decode_rate" or "prefill_rate". predicted: without correction. measured: the same quantity. measured_at:
    of the profile that the prediction used. model, format, threads: for people."""

    what: str
    predicted: float
    measured: float
    measured_at: str
    model: str = ""
    format: str = ""
    threads: int = 0


@dataclass(frozen=True)
class Correction:
    """factor: a prediction is multiplied by it. low, high: nine times in ten, the truth lies between these multiples of
    the corrected prediction. runs: how many it rests on."""

    factor: float
    low: float
    high: float
    runs: int


def no_correction() -> Correction:
    return Correction(1.0, 1 - _ASSUMED_ERROR, 1 + _ASSUMED_ERROR, 0)


def correction_from(runs: Sequence[Run]) -> Correction:
    """runs: of one thing on one machine"""
    errors = [math.log(run.measured / run.predicted) for run in runs if run.measured > 0 and run.predicted > 0]
    if not errors:
        return no_correction()
    shift = median(errors) * len(errors) / (len(errors) + _WEIGHT_OF_NONE)
    residuals = sorted(abs(error - shift) for error in errors)
    # the interval must hold for the next run too: it counts as one more, with the assumed error
    residuals = sorted([*residuals, max(residuals[-1], math.log1p(_ASSUMED_ERROR))])
    spread = residuals[min(len(residuals) - 1, math.ceil(_COVERED * len(residuals)) - 1)]
    return Correction(math.exp(shift), math.exp(-spread), math.exp(spread), len(errors))


def corrections_file() -> Path:
    return cache_folder() / "machine" / "runs.jsonl"


def record(runs: Sequence[Run], path: Path | None = None) -> None:
    """Adds runs to the file, by default the user's. Raises ThriftbitError if it cannot be written."""
    path = path or corrections_file()
    lines = "".join(json.dumps(asdict(run)) + "\n" for run in runs)
    try:
        private_folder(path.parent)
        with FileLock(path.with_name(path.name + ".lock"), mode=PRIVATE_MODE), open_private(path, "ab") as file:
            file.write(lines.encode())
    except OSError as error:
        raise ThriftbitError(f"{path}: runs cannot be kept: {error.strerror or error}") from None


def read_correction(what: str, profile: Profile | None, path: Path | None = None) -> Correction:
    """Return the correction from the newest runs that this profile predicted; none where there are no such runs."""
    path = path or corrections_file()
    if profile is None or profile.measured_at is None or not path.is_file():
        return no_correction()
    try:
        lines = read_regular(path, _LARGEST_BYTES).splitlines()
    except ThriftbitError:  # predictions do without
        return no_correction()
    runs = [run for line in lines if (run := _parsed(line))]
    usable = [run for run in runs if run.what == what and run.measured_at == profile.measured_at]
    return correction_from(usable[-_NEWEST:])


def _parsed(line: bytes) -> Run | None:
    try:
        return from_document(Run, json.loads(line))
    except (ValueError, RecursionError, ThriftbitError):
        return None
