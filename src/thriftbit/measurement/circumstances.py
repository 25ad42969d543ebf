"""What every row of one run has in common."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import thriftbit
from thriftbit.machine.identity import describe_machine
from thriftbit.runtime.engine import engine_version


def circumstances(command: str, packages: Sequence[str]) -> dict[str, Any]:
    """Return the fields of `Measurement` that all rows of a run share.

    command: what to type to measure it again. packages: those that compute it, beside thriftbit.
    """
    return {
        "machine": describe_machine(),
        "versions": {"thriftbit": thriftbit.__version__} | {package: version(package) for package in packages},
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command,
    }


def engine_circumstances(command: str) -> dict[str, Any]:
    """Return the same fields for what llama.cpp measures, with its version."""
    common = circumstances(command, ())
    return common | {"versions": common["versions"] | {"llama.cpp": engine_version()}}
