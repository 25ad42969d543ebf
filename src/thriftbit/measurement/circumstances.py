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
    """command: what to type to measure it again. packages: what computes it, beside thriftbit.
    -> fields of `Measurement`"""
    return {
        "machine": describe_machine(),
        "versions": {"thriftbit": thriftbit.__version__} | {package: version(package) for package in packages},
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command,
    }


def engine_circumstances(command: str) -> dict[str, Any]:
    """-> the same for what the real engine does, which tells its version itself"""
    common = circumstances(command, ())
    return common | {"versions": common["versions"] | {"llama.cpp": engine_version()}}
