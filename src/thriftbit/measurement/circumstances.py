"""What every row of one run has in common."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from thriftbit.machine.identity import describe_machine


def circumstances(command: str, packages: Sequence[str]) -> dict[str, Any]:
    """command: what to type to measure it again. packages: what computes it, beside thriftbit.
    -> fields of `Measurement`"""
    return {
        "machine": describe_machine(),
        "versions": {package: version(package) for package in ("thriftbit", *packages)},
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command,
    }
