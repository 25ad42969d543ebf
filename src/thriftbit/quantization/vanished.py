"""Weights that became zero because they are too small for their format.

Most formats keep the scale of a block in half precision, which ends at 6e-8. Where the largest weight of a block is so
small that its scale would be below that, all of the block becomes zero: in Q8_0 from about 4e-6 on, in NVFP4, whose
scales have 8 bits, from about 1e-3 on. The file runs and has lost a matrix. Refusing it would be wrong, as a block that
hardly matters may well vanish, so it is counted and told at the end.

Below which size that can happen is found out once for a format, by encoding a few blocks of every size; only blocks
below it are decoded again and looked at, which costs next to nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import numpy as np

from thriftbit.errors import ThriftbitError, enumeration
from thriftbit.formats import format_named
from thriftbit.formats.format import ByteArray, Format
from thriftbit.sizes import counted
from thriftbit.sources.tensor import FloatArray

_EXPONENTS = range(-60, 1)  # of two: sizes that are tried
_BLOCKS = 8  # of each size


def count_vanished(format: Format, rows: FloatArray, encoded: ByteArray) -> int:
    """rows: float32 (n, width). encoded: uint8 (n, row_bytes), the rows in that format. Returns how many weights other
    than zero are in blocks of which nothing is left."""
    largest = vanishing_size(format.name)
    if not largest:
        return 0
    blocks = rows.reshape(-1, format.block_size)
    sizes = np.abs(blocks).max(axis=1)
    (small,) = np.nonzero((sizes > 0) & (sizes <= largest))
    if not len(small):
        return 0
    decoded = format.decode(encoded.reshape(-1, format.block_bytes)[small])
    gone = ~decoded.any(axis=1)
    return int(np.count_nonzero(blocks[small[gone]]))


def describe_vanished(vanished: Mapping[str, float]) -> str:
    """vanished: tensors -> the share of their weights. Returns a sentence for people."""
    most = sorted(vanished, key=lambda name: -vanished[name])
    listed = enumeration([f"{name} ({_share(vanished[name])} of it)" for name in most])
    return (
        f"Warning: in {counted(len(vanished), 'tensor')}, weights are too small for their format and became zero: "
        f"{listed}. BF16 and F32 hold them: take --to BF16, or give these tensors BF16 in a plan (--dry-run --json "
        "prints one, --plan takes it)"
    )


def _share(share: float) -> str:
    return "all" if share > 0.9995 else f"{share:.1%}" if share > 0.0005 else "under 0.1%"


@cache
def vanishing_size(name: str) -> float:
    """name: of a format. Returns the largest magnitude below which a block
    may vanish, found by trying; 0.0 if none does."""
    format = format_named(name)
    if not format.can_decode:
        return 0.0
    random = np.random.default_rng(0)
    shapes = random.standard_normal((_BLOCKS, format.block_size)).astype(np.float32)
    shapes[0], shapes[1] = 1.0, -1.0
    shapes[2] = 0.0
    shapes[2, 0] = 1.0
    shapes /= np.abs(shapes).max(axis=1, keepdims=True)
    found = 0.0
    for exponent in _EXPONENTS:
        size = float(2.0**exponent)
        if not format.decode(_encoded(format, shapes * np.float32(size))).any(axis=1).all():
            found = 2 * size
    return found


def _encoded(format: Format, rows: FloatArray) -> ByteArray:
    try:
        return format.encode(rows)
    except ThriftbitError:  # formats of very few bits are not encoded without importance
        return format.encode(rows, np.ones(rows.shape[1], np.float32))
