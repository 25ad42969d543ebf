"""Formats of few bits need importance data: without it, the bits are not where they matter, and the file is poor.

Which formats these are is llama-quantize's list (`presets.toml`). Where it refuses, so do we, before the first weight
is read. One can insist on such a file, because our encoders work without, where some of llama.cpp's do not.
"""

from __future__ import annotations

import logging
from collections.abc import Container, Sequence

from thriftbit.errors import UsageError, enumeration
from thriftbit.quantization.calibration_data import Calibration
from thriftbit.quantization.importance import COMMONLY_MISSING, Coverage
from thriftbit.quantization.plan import Plan
from thriftbit.quantization.presets import formats_that_need_importance
from thriftbit.sizes import counted
from thriftbit.sources.model import Model

_logger = logging.getLogger(__name__)

REMEDY = (
    "Add --effort calibrated, which finds out here what matters (--save-imatrix FILE keeps it), or --imatrix FILE with "
    "importance data of this model. --effort plain makes the file without, and loses far more; Q2_K is the smallest "
    "preset that does without"
)


class NeedsImportanceError(UsageError):
    """A file is asked for that is poor without importance data, and there is none."""


def tensors_that_need_importance(model: Model, plan: Plan) -> list[str]:
    """Return tensors that the plan rounds to so few bits, in the model's order; never the embedding or the output."""
    formats = formats_that_need_importance(plan.preset)
    return [
        tensor.name
        for tensor in model.tensors
        if plan.formats[tensor.name] in formats
        and tensor.name not in COMMONLY_MISSING
        and tensor.same_format != plan.formats[tensor.name]
    ]


def check_importance(
    model: Model,
    plan: Plan,
    coverage: Coverage | None,
    calibration: Calibration | None,
    *,
    insist: bool,
) -> None:
    """coverage: of the importance data or the calibration; None without either.
    insist: on a file without importance data. Raises NeedsImportanceError where it is missing for a whole file or for
    one tensor; warns of experts without any, and of what a calibration leaves out."""
    needing = tensors_that_need_importance(model, plan)
    if not needing:
        return
    if coverage is None:
        if not insist:
            raise NeedsImportanceError(refusal(plan.preset, plan.formats[needing[0]]))
        _logger.warning(f"{counted(len(needing), 'tensor')} of few bits without importance data: expect a large loss.")
        return
    missing = [name for name in needing if name in coverage.missing]
    if missing and not insist:
        raise NeedsImportanceError(
            f"{missing[0]}: gets {plan.formats[missing[0]]}, which needs importance data, and the data says nothing "
            f"about it{_and_others(missing)}; make the data from this model, or choose a format of more bits"
        )
    if calibration is None:
        _warn(needing, coverage.unreached, "the importance data is all zero for some experts or rows")
    else:
        _warn(needing, calibration.missing, "the calibration has no data here")


def refusal(preset: str, format_name: str) -> str:
    """Return why a file without importance data is refused, and what to do instead."""
    named = preset if preset != "custom" else f"a plan with {format_name}"
    return f"{named} needs importance data: with so few bits, rounding has to know which weights matter. {REMEDY}"


def _warn(names: Sequence[str], concerned: Container[str], why: str) -> None:
    found = [name for name in names if name in concerned]
    if found:
        _logger.warning(f"{enumeration(found)}: {why}, so rounding to so few bits loses more than elsewhere.")


def _and_others(names: Sequence[str]) -> str:
    return f" (nor about {len(names) - 1} more)" if len(names) > 1 else ""
