"""What a quantized model is written into.

The loop (`quantize.py`) turns tensors into blocks and does not know what becomes of them. A container knows: the names
that the tensors get, how they are arranged, what is said about the model beside them, and how all of it reaches the
disk. GGUF (`metadata.py`) is the only container so far. Another one is a file of its own with such a function.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from thriftbit.formats.format import ByteArray
from thriftbit.quantization.calibration_data import Calibration
from thriftbit.quantization.importance import ImportanceMatrix
from thriftbit.quantization.plan import Plan
from thriftbit.sources.model import Model


@dataclass(frozen=True)
class Making:
    """How a file is made, as far as the file says it about itself. effort: "plain", "calibrated" or "tuned".
    fingerprint: of the weights that it is made from, `Model.fingerprint`."""

    fingerprint: str
    effort: str = "plain"
    importance: ImportanceMatrix | None = None
    calibration: Calibration | None = None


class Writer(AbstractContextManager["Writer"], Protocol):
    """Writes one model, whole or not at all. Entering it can raise ThriftbitError: no room, no permission, a file that
    is there."""

    @property
    def path(self) -> Path:
        """Return where the file will be; after the end, where it is."""

    @property
    def size_bytes(self) -> int:
        """Return the size of the whole, known before anything is written."""

    def write(self, name: str, pieces: Iterable[ByteArray]) -> None:
        """Write one tensor, in the order of the model: its rows of blocks, piece by piece."""


class Container(Protocol):
    """Checks that it can hold the model with that plan, works out the size, and returns a writer. Nothing is written
    before the writer is entered. Raises ThriftbitError for a tensor that it cannot hold."""

    def __call__(self, path: Path, model: Model, plan: Plan, making: Making, *, force: bool) -> Writer: ...
