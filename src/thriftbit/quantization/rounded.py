"""Matrices that were rounded before the file is written, kept on disk until then. Needs no torch.

The problem: rounding takes hours, on matrices in the order of the network or on several at once. The loop that writes
takes tensors in the order of the file. So blocks wait in a folder, with one file for every matrix. Each file is whole
or not there, and says what it is made of: an interrupted run continues from what it finds, and takes nothing for its
own that is of another model, text or format.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from thriftbit.errors import ThriftbitError
from thriftbit.formats import format_named
from thriftbit.formats.format import ByteArray
from thriftbit.library.artefacts import DAMAGE, ROUNDED, MadeOf, full_disk_explained, made_of
from thriftbit.machine.private_files import open_private, private_folder
from thriftbit.quantization.calibration_data import Calibration
from thriftbit.quantization.plan import Plan
from thriftbit.sources.model import Model

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rounded:
    """folder: holds the blocks. made_of: the model, the calibration, the method and the formats."""

    folder: Path
    made_of: MadeOf

    def __contains__(self, name: str) -> bool:
        return self._path(name).exists()

    def blocks(self, name: str) -> ByteArray:
        """Return uint8 (rows, row bytes) of the container's tensor `name`. ThriftbitError if the file is damaged."""
        blocks: ByteArray = self._part(name, "blocks")
        return blocks

    def note(self, name: str) -> str:
        """Return why the matrix was not rounded as a whole, "" if it was."""
        return str(self._part(name, "note"))

    def keep(self, name: str, blocks: ByteArray, note: str = "") -> None:
        private_folder(self.folder)
        unfinished = self.folder / f"unfinished-{os.getpid()}"
        with full_disk_explained(self.folder):
            with open_private(unfinished, "wb") as file:
                np.savez(file, key=self.made_of.key, blocks=blocks, note=note)
            unfinished.replace(self._path(name))

    def check_belongs(self, model: Model, plan: Plan) -> None:
        """Raises ThriftbitError if the blocks are of another model or in other formats than the plan's."""
        self.made_of.check_model(model, f"what was rounded in {self.folder}")
        for name, format in self.made_of.facts["formats"].items():
            if name in self and plan.formats.get(name) != format:
                raise ThriftbitError(
                    f"{name}: was rounded in {format}, and the plan says {plan.formats.get(name)}; round for this plan"
                )

    def remove_damaged(self, model: Model) -> None:
        """Remove the blocks that cannot be read, are of something else or too few, and say so."""
        for tensor in model.tensors:
            if tensor.name not in self:
                continue
            try:
                shape = self.blocks(tensor.name).shape
                format = format_named(self.made_of.facts["formats"][tensor.name])
                good = shape == (tensor.rows, format.row_bytes(tensor.width))
            except (ThriftbitError, KeyError):
                good = False
            if not good:
                _logger.warning(f"{self._path(tensor.name)} is damaged; {tensor.name} is rounded again")
                self._path(tensor.name).unlink(missing_ok=True)

    def discard(self) -> None:
        """Remove the folder. Call it once the file is written."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.npz"

    def _part(self, name: str, part: str) -> Any:
        try:
            with self._path(name).open("rb") as raw, np.load(raw) as file:
                if str(file["key"]) != self.made_of.key:
                    raise ValueError("of something else")
                return file[part]
        except DAMAGE:
            raise ThriftbitError(f"{self._path(name)}: is damaged; run again, and {name} is rounded again") from None


def rounded_for(
    model: Model, plan: Plan, calibration: Calibration, effort: str, method: int, names: Collection[str] | None = None
) -> MadeOf:
    """Return what rounded matrices are made of. names: of the matrices; all that the calibration has data on if
    None."""
    formats = {name: plan.formats[name] for name in sorted(calibration.names if names is None else names)}
    key = calibration.made_of.key
    return made_of(ROUNDED, model, effort=effort, method=method, calibration=key, formats=formats)
