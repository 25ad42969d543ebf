"""Real runs correct predictions: the measured speed of a file is compared with the predicted one.

Called after a measurement, with its rows and its files. The prediction that is kept is from the profile alone, so that
corrections are not corrected again (`machine/corrections.py`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from thriftbit.advice.options import own_formats
from thriftbit.errors import ThriftbitError
from thriftbit.machine.corrections import Run, record
from thriftbit.machine.model_shape import ModelShape, shape_of
from thriftbit.machine.predict import decode_rate, prefill_rate
from thriftbit.machine.prediction import Prediction
from thriftbit.machine.profile import Profile, read_profile
from thriftbit.measurement.measurement import Measurement
from thriftbit.sources.remote import open_outline

_LEARNED = ("decode_rate", "prefill_rate")


def learn(rows: Sequence[Measurement], files: Iterable[str | Path], profile: Profile | None = None) -> list[Run]:
    """Keep the runs that the rows describe, and return them: none if this computer was never measured. A file that
    cannot be described is passed over.

    rows: just measured here. files: that the rows are about. profile: the stored one by default."""
    speeds = [row for row in rows if row.what in _LEARNED and row.value]
    profile = profile or (read_profile() if speeds else None)
    if profile is None or profile.measured_at is None:
        return []
    shapes = {Path(file).name: shape for file in files if (shape := _shape(file))}
    runs = [run for row in speeds if (run := _run(row, shapes, profile))]
    if runs:
        record(runs)
    return runs


def _run(row: Measurement, shapes: Mapping[str, ModelShape], profile: Profile) -> Run | None:
    shape, settings = shapes.get(row.subject.name), row.settings
    prompt, written, threads = (settings.get(key) for key in ("prompt_tokens", "generated_tokens", "threads"))
    if shape is None or not (isinstance(prompt, int) and isinstance(written, int) and isinstance(threads, int)):
        return None
    if row.what == "decode_rate":
        predicted: Prediction = decode_rate(shape, profile, filled_tokens=prompt + written // 2, threads=threads)
    else:
        predicted = prefill_rate(shape, profile, prompt_tokens=prompt, threads=threads)
    if predicted.value is None or row.value is None or settings.get("device") != profile.device:
        return None
    return Run(
        what=row.what,
        predicted=predicted.value,
        measured=row.value,
        measured_at=profile.measured_at or "",
        model=row.subject.name,
        format=row.subject.level,
        threads=threads,
    )


def _shape(file: str | Path) -> ModelShape | None:
    try:
        outline = open_outline(file, offline=True)
        _, plan = own_formats(outline)
        return shape_of(outline.model.architecture, outline.model.metadata, plan.entries(outline.model))
    except ThriftbitError:
        return None
