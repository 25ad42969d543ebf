"""The codebooks of the IQ formats, read from this folder's files. README.md says where they come from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np

from thriftbit.formats.format import ByteArray, FloatArray, give_codebook


@dataclass(frozen=True)
class Codebook:
    """values: float32 (levels,), ascending: what a number of a codeword can be. levels: uint8 (codewords, group), the
    place of each number in `values`."""

    values: FloatArray
    levels: ByteArray

    @property
    def vectors(self) -> FloatArray:
        """Return float32 (codewords, group): the codewords themselves."""
        vectors: FloatArray = self.values[self.levels]
        return vectors


@cache
def codebook(name: str) -> Codebook:
    """Return the codebook in the file of that name, without `.txt`. The kernels have it from then on."""
    first, *lines = files(__name__).joinpath(f"{name}.txt").read_text(encoding="ascii").splitlines()
    values = np.array(first.split()[1:], np.float32)
    words = " ".join(lines).split()
    levels = np.frombuffer("".join(words).encode("ascii"), np.uint8) - ord("0")
    book = Codebook(values, levels.reshape(len(words), -1))
    give_codebook(name, book.values, book.levels)
    return book
