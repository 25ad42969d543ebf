"""`tuned` rounding of a model for a plan. Results stay in a folder of the cache until the file is written, so that an
interrupted run can continue."""

from __future__ import annotations

import hashlib
import logging

from thriftbit.errors import ThriftbitError
from thriftbit.folders import cache_folder
from thriftbit.progress import Progress, no_progress
from thriftbit.quantization.calibration_data import Calibration
from thriftbit.quantization.plan import Plan
from thriftbit.quantization.rounded import Rounded
from thriftbit.sizes import describe_seconds
from thriftbit.sources.model import Model

_logger = logging.getLogger(__name__)

WINDOWS = 80  # to calibrate on: what quantized layers do to one another takes more text to learn than inputs alone
VERSION = 3  # of the method; what another one left is not gone on with


def tuned(
    model: Model,
    plan: Plan,
    calibration: Calibration,
    *,
    progress: Progress = no_progress,
) -> Rounded:
    """calibration: of this model, on WINDOWS windows or more. progress: see `Progress`.

    -> every matrix that the calibration has data on, rounded for this plan, for `quantize`. A run that was interrupted
    goes on behind the last matrix that was finished. `Rounded.discard` gives the space back.
    Raises ThriftbitError if the extra `torch` is not installed.
    """
    folder = cache_folder() / "tuning" / _identity(plan, calibration)
    try:
        from thriftbit.network.threads import choose_threads
        from thriftbit.quantization.estimate import tuning_seconds
        from thriftbit.quantization.tuning import tune
    except ModuleNotFoundError as error:
        raise ThriftbitError(f'tuning needs {error.name}; try: pip install "thriftbit[torch]"') from None
    done = sum(name in Rounded(folder) for name in calibration.names)
    if done:
        _logger.info(f"Going on with {done} of {len(calibration.names)} matrices, rounded before: {folder}")
    choose_threads()
    seconds = tuning_seconds(model, calibration.windows.size)
    _logger.info(f"Tuning {len(calibration.names)} matrices, about {describe_seconds(seconds)} here")
    return tune(model, plan, calibration, folder, progress=progress)


def _identity(plan: Plan, calibration: Calibration) -> str:
    """Return what the blocks depend on: weights and text, which name the calibration's folder, and the formats."""
    formats = ",".join(f"{name}={format}" for name, format in plan.formats.items())
    return hashlib.sha256(f"{VERSION} {calibration.folder.name} {formats}".encode()).hexdigest()[:32]
