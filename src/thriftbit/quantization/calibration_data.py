"""The results of a calibration on disk, for the code that quantizes with them. Needs no torch.

A folder with one file for every matrix, read when asked for. Together the files are as large as the model. Moments are
symmetric, so half of each is stored.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from thriftbit.containers.regular_files import read_regular
from thriftbit.errors import ThriftbitError
from thriftbit.formats.format import FloatArray
from thriftbit.machine.private_files import open_private, private_folder, write_private
from thriftbit.quantization.curvature import Curvature

INDEX = "calibration.json"  # written last: without it the folder is not a calibration
WINDOWS = "windows.npy"
_LARGEST_INDEX_BYTES = 64 << 20
FEWEST_TOKENS = 32  # that reach an expert, for what matters to it to be more than chance
HELD_BACK = 5  # windows are kept for checking, or one in eight if that is less


def held_back(windows: int) -> NDArray[np.bool_]:
    """Return, for each window, whether it takes no part in the moments."""
    every = max(8, -(-windows // HELD_BACK))
    held: NDArray[np.bool_] = np.arange(windows) % every == every - 1
    return held


@dataclass(frozen=True)
class Check:
    """Tokens that took no part in the moments. inputs: float32 (tokens, width). gradients: float32 (tokens, n)."""

    inputs: FloatArray
    gradients: FloatArray

    def cost(self, errors: FloatArray) -> float:
        """errors: float32 (n, width). Return the cost of these tokens, as `Curvature.cost` does; 0 without tokens.

        Every token's gradient meets every token's input. The mean of (gᵀ E x)² over single tokens would need no
        Kronecker product, but from this few tokens it is mostly chance.
        """
        x_size, g_size = (np.linalg.norm(part, axis=1, keepdims=True) for part in (self.inputs, self.gradients))
        total = float(np.sum((x_size * g_size) ** 2, dtype=np.float64)) * len(self.inputs)
        responses = (self.gradients * x_size) @ errors @ (self.inputs * g_size).T
        return float(np.sum(responses * responses, dtype=np.float64)) / total if total > 0 else 0.0


@dataclass(frozen=True)
class Calibration:
    """A folder that `calibrate` wrote.

    names: the container's tensors that have data. missing: matrices in layers that have none. experts: tensors of
    experts, which have importance only. tokens: how many tokens everything was measured on.
    """

    folder: Path
    names: frozenset[str]
    missing: tuple[str, ...]
    tokens: int
    experts: frozenset[str] = frozenset()

    def importance(self, name: str) -> FloatArray:
        """Return float32 (width,): mean squares of the inputs, as in an importance file. For experts (experts, width);
        experts with too few tokens have the mean of all."""
        importance = self._read(name, "importance")
        if unheard := self.unheard(name):
            tokens = self.expert_tokens(name)
            importance[unheard] = tokens @ importance / tokens.sum() if tokens.any() else 1.0
        return importance

    def expert_tokens(self, name: str) -> NDArray[np.int64]:
        """Return (experts,): how many tokens reached each expert."""
        with np.load(self.folder / f"{name}.npz") as file:
            tokens: NDArray[np.int64] = file["tokens"]
        return tokens

    def unheard(self, name: str) -> list[int]:
        """Return the numbers of the experts that too few tokens reached; nothing for tensors without experts."""
        return np.flatnonzero(self.expert_tokens(name) < FEWEST_TOKENS).tolist() if name in self.experts else []

    def curvature(self, name: str) -> Curvature:
        """Return the curvature of the tensor, with rows in the container's order."""
        tokens = float(self._read(name, "tokens"))
        return Curvature(_unpacked(self._read(name, "columns")), self.rows(name), tokens)

    def rows(self, name: str) -> FloatArray | None:
        """Return the curvature of the outputs alone."""
        rows = self._read(name, "rows")
        return _unpacked(rows) if rows.size else None

    def check(self, name: str) -> Check:
        return Check(self._read(name, "inputs"), self._read(name, "gradients"))

    def sizes(self, name: str) -> FloatArray:
        """Return float32 (windows, length): the factor of every token's input in the moment of inputs."""
        return self._read(name, "sizes")

    @cached_property
    def windows(self) -> NDArray[np.int64]:
        """Return (windows, length): the token ids of the text, held-back windows included."""
        windows: NDArray[np.int64] = np.load(self.folder / WINDOWS)
        return windows

    def _read(self, name: str, part: str) -> FloatArray:
        with np.load(self.folder / f"{name}.npz") as file:
            values: FloatArray = file[part]
        return values

    def __repr__(self) -> str:
        return f"Calibration({str(self.folder)!r}, {len(self.names)} matrices)"


def open_calibration(folder: Path) -> Calibration:
    """Open what `calibrate` wrote. ThriftbitError if it is unfinished or damaged."""
    try:
        index = json.loads(read_regular(folder / INDEX, _LARGEST_INDEX_BYTES))
        private_folder(folder)
        names, experts = (frozenset(map(str, index[key])) for key in ("names", "experts"))
        return Calibration(folder, names, tuple(map(str, index["missing"])), int(index["tokens"]), experts)
    except (ThriftbitError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        raise ThriftbitError(f"{folder}: holds no finished calibration; calibrate again") from None


def finish_calibration(
    folder: Path,
    names: Iterable[str],
    experts: Iterable[str],
    missing: Iterable[str],
    windows: NDArray[np.int64],
    seed: int,
) -> Calibration:
    """Write the index that makes a folder with a file for each of `names` and `experts` a calibration. Return it."""
    with open_private(folder / WINDOWS, "wb") as file:
        np.save(file, windows)
    tokens = int((~held_back(len(windows))).sum()) * windows.shape[1]
    known = {"names": sorted(names), "experts": sorted(experts), "missing": list(missing)}
    index = {**known, "tokens": tokens, "seed": seed}
    write_private(folder / INDEX, json.dumps(index).encode())
    return open_calibration(folder)


def packed(moment: FloatArray) -> FloatArray:
    """Return the lower triangle, row by row: half of the space."""
    return moment[np.tri(len(moment), dtype=np.bool_)].astype(np.float32)


def _unpacked(triangle: FloatArray) -> FloatArray:
    size = int((np.sqrt(8 * len(triangle) + 1) - 1) / 2)
    moment = np.zeros((size, size), np.float32)
    moment[np.tri(size, dtype=np.bool_)] = triangle
    moment += np.tril(moment, -1).T
    return moment
