"""Matrices that were rounded before the file is written, kept on disk until then. Needs no torch.

The problem: `tuned` rounding goes through the layers in the order of the network and takes hours. The loop that writes
takes tensors in the order of the file. So blocks wait in a folder, with one file for every matrix. Each file is whole
or not there, and an interrupted run continues from what it finds.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from thriftbit.formats.format import ByteArray
from thriftbit.machine.private_files import open_private, private_folder


@dataclass(frozen=True)
class Rounded:
    """folder: holds the blocks for one model, plan and calibration."""

    folder: Path

    def __contains__(self, name: str) -> bool:
        return self._path(name).exists()

    def blocks(self, name: str) -> ByteArray:
        """Return uint8 (rows, row bytes) of the container's tensor `name`."""
        blocks: ByteArray = self._part(name, "blocks")
        return blocks

    def note(self, name: str) -> str:
        """Return why the matrix was not rounded as a whole, "" if it was."""
        return str(self._part(name, "note"))

    def keep(self, name: str, blocks: ByteArray, note: str = "") -> None:
        private_folder(self.folder)
        # named after the process: two runs for the same file must not write into each other's
        unfinished = self.folder / f"unfinished-{os.getpid()}"
        with open_private(unfinished, "wb") as file:
            np.savez(file, blocks=blocks, note=note)
        unfinished.replace(self._path(name))

    def discard(self) -> None:
        """Remove the folder. Call it once the file is written."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.npz"

    def _part(self, name: str, part: str) -> ByteArray:
        with np.load(self._path(name)) as file:
            values: ByteArray = file[part]
        return values
