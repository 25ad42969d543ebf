"""The map of a model: its sensitivities, measured once and kept, so that every budget is answered at once.

Making a map takes minutes for a small model and hours for a large one. Every result is kept as soon as it is known
(`journal.py`), so an interrupted map continues, and results for plain files also serve calibrated ones.

Making it needs the extra `torch` (`map_making.py`). Reading it does not.
"""

from __future__ import annotations

import hashlib
import shutil
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from thriftbit.containers.regular_files import read_regular
from thriftbit.library.artefacts import MAP, MadeOf, locked, made_of, make_room, read_made_of, used
from thriftbit.machine.identity import usable_cores
from thriftbit.machine.private_files import private_folder
from thriftbit.progress import Progress, no_progress, part_of
from thriftbit.quantization import calibration_data, calibration_text
from thriftbit.quantization.calibrated import WORTH_WORKERS
from thriftbit.quantization.calibration_text import CORPORA, LARGEST_TEXT_BYTES, WINDOWS, calibrate
from thriftbit.quantization.engine.memory import Memory, rounding_needs
from thriftbit.quantization.engine.pool import pool_of
from thriftbit.quantization.importance import ImportanceMatrix
from thriftbit.quantization.journal import Journal
from thriftbit.quantization.map_journal import FINISHED, is_sound, sensitivities_in
from thriftbit.quantization.rounded import Rounded
from thriftbit.quantization.sensitivity import CALIBRATED, PLAIN, Sensitivities
from thriftbit.sources.model import Model

METHOD = 4  # its version: what another one left is not used
MEASURED_WINDOWS = 12
CALIBRATING_SHARE = 0.4  # of all the work, roughly


def read_map(model: Model, effort: str = CALIBRATED, text: Path | None = None) -> Sensitivities | None:
    """Return the map of this model with this text, for files of this effort; None if there is none."""
    made = _made_of(model, text)
    if read_made_of(made.folder) != made:
        return None
    used(made.folder)
    journal = Journal(made.folder / "map.jsonl", is_sound)
    return sensitivities_in(journal, model) if FINISHED + effort in journal else None


def map_model(
    model: Model,
    effort: str = CALIBRATED,
    text: Path | None = None,
    *,
    windows: int = WINDOWS,
    workers: int | None = None,
    memory_bytes: int | None = None,
    cache_limit_bytes: int | None = None,
    progress: Progress = no_progress,
) -> Sensitivities:
    """model: in full precision. effort: how files will be rounded; whatever is more than PLAIN counts as CALIBRATED.
    text: to calibrate on, the texts in the box if None; windows: of it. Other arguments: as for `calibrate`.

    Returns the map: from the user's cache, if it was made before.
    Raises ThriftbitError for text that cannot be read, and if the extra `torch` is not installed."""
    effort = PLAIN if effort == PLAIN else CALIBRATED  # more effort than that is not mapped
    if known := read_map(model, effort, text):
        return known
    calibrated_before = True

    def calibrating(what: str, fraction: float) -> None:
        nonlocal calibrated_before
        calibrated_before = False
        progress(what, CALIBRATING_SHARE * fraction)

    calibration = calibrate(
        model,
        text,
        windows=windows,
        workers=workers,
        memory_bytes=memory_bytes,
        cache_limit_bytes=cache_limit_bytes,
        progress=calibrating,
    )
    from thriftbit.quantization.map_making import MapMaking  # torch is there, or the calibration would have said so

    made = _made_of(model, text)
    with locked(made.folder, f"mapping {model.source}"):
        if read_made_of(made.folder) != made:
            shutil.rmtree(made.folder, ignore_errors=True)
        made.write(private_folder(made.folder))
        make_room(made, model.size_bytes // 2, limit_bytes=cache_limit_bytes, staying=(calibration.folder,))
        matrices = [tensor for tensor in model.tensors if tensor.name in calibration.names]
        if workers is None:
            workers = usable_cores() if sum(tensor.parameters for tensor in matrices) > WORTH_WORKERS else 1
        if matrices:
            doing = f"mapping {model.source}"
            workers = Memory.of(memory_bytes).workers(rounding_needs(matrices), workers, doing)
        journal = Journal(made.folder / "map.jsonl", is_sound)
        begun = 0.0 if calibrated_before else CALIBRATING_SHARE
        MapMaking(
            model,
            calibration,
            _other_windows(model, text, windows),
            journal,
            Rounded(made.folder / "rounded", made),
            pool_of(workers),
            part_of(progress, begun, 1),
        ).make(effort)
    return sensitivities_in(journal, model)


def what_a_map_takes(model: Model, effort: str = CALIBRATED, text: Path | None = None) -> str:
    """Return what `map_model` would have to compute, in words; "" if it
    would compute nothing. Computes nothing long."""
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


def map_importance(model: Model, text: Path | None = None) -> ImportanceMatrix:
    """Return the importance data behind a map's plain losses, for a model that was mapped with this text."""
    calibration = calibrate(model, text)
    entries = {name: partial(calibration.importance, name) for name in sorted(calibration.names | calibration.experts)}
    return ImportanceMatrix(calibration.folder, ("thriftbit's calibration",), 0, entries)


def _made_of(model: Model, text: Path | None) -> MadeOf:
    digest = hashlib.sha256()
    for path in [text] if text else sorted(CORPORA.glob("*.gz")):
        digest.update(read_regular(path, LARGEST_TEXT_BYTES))
    return made_of(MAP, model, method=METHOD, calibration=calibration_data.METHOD, text=digest.hexdigest())
