"""What every row of one run in the real engine has in common."""

from __future__ import annotations

from typing import Any

from thriftbit.measurement.circumstances import circumstances
from thriftbit.runtime.engine import engine_version


def engine_circumstances(command: str) -> dict[str, Any]:
    """command: what to type to measure it again. -> fields of `Measurement`"""
    common = circumstances(command, ())
    return common | {"versions": common["versions"] | {"llama.cpp": engine_version()}}
