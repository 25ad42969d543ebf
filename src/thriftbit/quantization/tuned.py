"""`tuned` rounding of a model for a plan. Results stay in a folder of the cache until the file is written, so that an
interrupted run can continue."""

from __future__ import annotations

import logging

from thriftbit.errors import ThriftbitError
from thriftbit.progress import Progress, no_progress
from thriftbit.quantization.calibration_data import Calibration
from thriftbit.quantization.plan import Plan
from thriftbit.quantization.rounded import Rounded, rounded_for
from thriftbit.sizes import describe_seconds
from thriftbit.sources.model import Model

_logger = logging.getLogger(__name__)

WINDOWS = 80  # to calibrate on: what quantized layers do to one another takes more text to learn than inputs alone


def tune(
    model: Model,
    plan: Plan,
    calibration: Calibration,
    *,
    workers: int | None = None,
    memory_bytes: int | None = None,
    cache_limit_bytes: int | None = None,
    progress: Progress = no_progress,
) -> Rounded:
    """calibration: of this model, on WINDOWS windows or more. workers, memory_bytes, cache_limit_bytes: as for
    `calibrate`. progress: see `Progress`.

    Returns every matrix that the calibration has data on, rounded for this plan, for `quantize`. A run that was
    interrupted goes on behind the last matrix that was finished. `Rounded.discard` gives the space back.
    Raises ThriftbitError for a calibration of another model, for want of memory or disk, and if the extra `torch` is
    not installed."""
    try:
        from thriftbit.quantization.estimate import tuning_seconds, worthwhile_workers
        from thriftbit.quantization.tuning import METHOD, tune_in
    except ModuleNotFoundError as error:
        raise ThriftbitError(f'tuning needs {error.name}; try: pip install "thriftbit[torch]"') from None
    made = rounded_for(model, plan, calibration, "tuned", METHOD)
    done = sum(name in Rounded(made.folder, made) for name in calibration.names)
    if done:
        _logger.info(f"Going on with {done} of {len(calibration.names)} matrices, rounded before: {made.folder}")
    if workers is None:
        workers = worthwhile_workers(model, calibration.windows.size)
    about = describe_seconds(tuning_seconds(model, calibration.windows.size, workers))
    _logger.info(f"Tuning {len(calibration.names)} matrices, about {about} here")
    return tune_in(
        model,
        plan,
        calibration,
        made.folder,
        workers=workers,
        memory_bytes=memory_bytes,
        cache_limit_bytes=cache_limit_bytes,
        progress=progress,
    )
