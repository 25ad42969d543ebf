"""Vectors for every token of a text on disk, so that memory need not hold them for every layer."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from thriftbit.machine.private_files import open_private


@dataclass(frozen=True)
class Halves:
    """Vectors in half precision. values: float16 (tokens, width), with absolute values up to one. scales: float32
    (tokens,), one for each vector, because the vectors of some tokens are huge."""

    values: NDArray[np.float16]
    scales: NDArray[np.float32]

    @classmethod
    def of(cls, vectors: torch.Tensor) -> Halves:
        """Return floating-point vectors (..., width) in half precision."""
        flat = vectors.detach().reshape(-1, vectors.shape[-1]).float()
        scales = flat.abs().amax(dim=-1).clamp(min=1e-30)
        halves = (flat / scales[:, None]).to(torch.float16)
        return cls(halves.cpu().numpy(), scales.cpu().numpy())

    def whole(self) -> torch.Tensor:
        """Return float32 (tokens, width)."""
        return torch.from_numpy(self.values.astype(np.float32)).mul_(torch.from_numpy(self.scales)[:, None])


@dataclass(frozen=True)
class States:
    """Vectors of all tokens in a file: float16 (tokens, width), then the scale of each as float32 (tokens,).

    path: of the file. It is read and written by range, not mapped, so that its pages do not fill memory. exact: whether
    vectors are stored as float32 without scales, for uses that depend on small differences."""

    path: Path
    tokens: int
    width: int
    exact: bool = False

    @property
    def size_bytes(self) -> int:
        return self.tokens * (4 * self.width if self.exact else 2 * self.width + 4)

    @property
    def is_whole(self) -> bool:
        """Whether the file exists and has its full size."""
        return self.path.is_file() and self.path.stat().st_size == self.size_bytes

    def write(self, first: int, vectors: torch.Tensor | Halves) -> None:
        """Write the vectors (..., width) of the tokens from `first` on."""
        if self.exact:
            assert isinstance(vectors, torch.Tensor)
            self._put(4 * first * self.width, vectors.detach().float().cpu().numpy())
            return
        halves = vectors if isinstance(vectors, Halves) else Halves.of(vectors)
        self._put(2 * first * self.width, halves.values)
        self._put(2 * self.tokens * self.width + 4 * first, halves.scales)

    def read(self, first: int, count: int) -> torch.Tensor:
        """Return float32 (count, width): the vectors of the tokens from `first` on."""
        with open_private(self.path, "rb") as file:
            if self.exact:
                file.seek(4 * first * self.width)
                exact = np.fromfile(file, np.float32, count * self.width)
                return torch.from_numpy(exact.reshape(count, self.width))
            file.seek(2 * first * self.width)
            values = np.fromfile(file, np.float16, count * self.width)
            file.seek(2 * self.tokens * self.width + 4 * first)
            return Halves(values.reshape(count, self.width), np.fromfile(file, np.float32, count)).whole()

    def rows(self, numbers: NDArray[np.int64]) -> torch.Tensor:
        """Return float32 (len(numbers), width): the vectors of these tokens."""
        wanted, places = np.unique(numbers, return_inverse=True)
        edges = [0, *(np.flatnonzero(np.diff(wanted) != 1) + 1).tolist(), len(wanted)]
        runs = [(int(wanted[first]), last - first) for first, last in pairwise(edges) if last > first]
        found = [self.read(start, count) for start, count in runs]
        return torch.cat(found)[torch.from_numpy(places)] if found else torch.empty(0, self.width)

    def _put(self, offset: int, values: NDArray[np.generic]) -> None:
        with open_private(self.path, "r+b" if self.path.exists() else "w+b") as file:
            file.seek(offset)
            file.write(np.ascontiguousarray(values).data)


@dataclass
class Growing:
    """States that are written from the first token to the last. The file gets its name at the end."""

    states: States
    done: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        unfinished = self.states.path.with_suffix(".unfinished")
        self._unfinished = States(unfinished, self.states.tokens, self.states.width, self.states.exact)
        unfinished.unlink(missing_ok=True)

    def append(self, vectors: torch.Tensor | Halves) -> None:
        self._unfinished.write(self.done, vectors)
        self.done += len(vectors.values) if isinstance(vectors, Halves) else vectors.shape[:-1].numel()

    def finish(self) -> None:
        if self.done != self.states.tokens:
            raise ValueError(f"{self.states.path}: {self.done} of {self.states.tokens} tokens were written")
        self._unfinished.path.replace(self.states.path)
