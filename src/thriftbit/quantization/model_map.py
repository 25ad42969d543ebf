"""The map of a model: its sensitivities, measured once and kept, so that every budget is answered at once.

Making a map takes minutes for a small model and hours for a large one. Every result is kept as soon as it is known
(`journal.py`), so an interrupted map continues, and results for plain files also serve calibrated ones.

Making it needs the extra `torch` (`map_making.py`). Reading it does not.
"""

from __future__ import annotations

import hashlib
import os
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from thriftbit.containers.regular_files import read_regular
from thriftbit.folders import cache_folder
from thriftbit.progress import Progress, no_progress, part_of
from thriftbit.quantization import calibration_text
from thriftbit.quantization.calibration_text import CORPORA, LARGEST_TEXT_BYTES, WINDOWS, calibration_of
from thriftbit.quantization.importance import ImportanceMatrix
from thriftbit.quantization.journal import Journal
from thriftbit.quantization.map_journal import FINISHED, is_sound, sensitivities_in
from thriftbit.quantization.sensitivity import CALIBRATED, PLAIN, Sensitivities
from thriftbit.sources.model import Model

VERSION = 2  # of what is kept; another one does not read it
MEASURED_WINDOWS = 12
CALIBRATING_SHARE = 0.4  # of all the work, roughly


def read_map(model: Model, effort: str = CALIBRATED, text: Path | None = None) -> Sensitivities | None:
    """Return the map of this model with this text, for files of this effort; None if there is none."""
    journal = Journal(_folder(model, text) / "map.jsonl", is_sound)
    return sensitivities_in(journal, model) if FINISHED + effort in journal else None


def map_model(
    model: Model,
    effort: str = CALIBRATED,
    text: Path | None = None,
    *,
    windows: int = WINDOWS,
    threads: int | None = None,
    progress: Progress = no_progress,
) -> Sensitivities:
    """model: in full precision. effort: how files will be rounded; whatever is more than PLAIN counts as CALIBRATED.
    text: to calibrate on, the texts in the box if None; windows: of it. threads: for encoding, all cores if None.
    progress: see `Progress`.

    -> the map: from the user's cache, if it was made before
    Raises ThriftbitError for text that cannot be read, and if the extra `torch` is not installed.
    """
    effort = PLAIN if effort == PLAIN else CALIBRATED  # more effort than that is not mapped
    if known := read_map(model, effort, text):
        return known
    calibrated_before = True

    def calibrating(what: str, fraction: float) -> None:
        nonlocal calibrated_before
        calibrated_before = False
        progress(what, CALIBRATING_SHARE * fraction)

    calibration = calibration_of(model, text, windows=windows, progress=calibrating)
    from thriftbit.quantization.map_making import MapMaking  # torch is there, or the calibration would have said so

    folder = _folder(model, text)
    journal = Journal(folder / "map.jsonl", is_sound)
    begun = 0.0 if calibrated_before else CALIBRATING_SHARE
    MapMaking(
        model,
        calibration,
        _other_windows(model, text, windows),
        journal,
        folder / "rounded",
        threads or _cores(),
        part_of(progress, begun, 1),
    ).make(effort)
    return sensitivities_in(journal, model)


def what_a_map_takes(model: Model, effort: str = CALIBRATED, text: Path | None = None) -> str:
    """-> what `map_model` would have to compute, in words; "" if it would compute nothing. Computes nothing long."""
    if read_map(model, PLAIN if effort == PLAIN else CALIBRATED, text):
        return ""
    return (
        f"{calibration_text.what_calibration_takes(model, text, WINDOWS)}, then measuring every tensor in every format"
    )


def _other_windows(model: Model, text: Path | None, windows: int) -> NDArray[np.int64]:
    """Return windows of the text that were not calibrated on, unless there are no others."""
    used = {window.tobytes() for window in calibration_text.calibration_windows(model, text, windows)}
    cut = calibration_text.calibration_windows(model, text, 3 * windows)
    others = [window for window in cut if window.tobytes() not in used] or list(cut)
    chosen = np.unique(np.linspace(0, len(others) - 1, MEASURED_WINDOWS).astype(np.int64))
    return np.stack([others[number] for number in chosen])


def _cores() -> int:
    """-> how many cores this process may use"""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def map_importance(model: Model, text: Path | None = None) -> ImportanceMatrix:
    """Return the importance data behind a map's plain losses, for a model that was mapped with this text."""
    calibration = calibration_of(model, text)
    entries = {name: partial(calibration.importance, name) for name in sorted(calibration.names | calibration.experts)}
    return ImportanceMatrix(calibration.folder, ("thriftbit's calibration",), 0, entries)


def _folder(model: Model, text: Path | None) -> Path:
    digest = hashlib.sha256(f"{VERSION} {calibration_text.VERSION} {model.identity}".encode())
    for path in [text] if text else sorted(CORPORA.glob("*.gz")):
        digest.update(read_regular(path, LARGEST_TEXT_BYTES))
    return cache_folder() / "map" / digest.hexdigest()[:32]
