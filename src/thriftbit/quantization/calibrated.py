"""A matrix encoded with calibration data, never worse than without.

The problem: a rounding that lowers the cost on the calibration text may raise it on other text, if the calibration text
was short or hardly used the matrix. The choice: the rounding is judged on tokens that calibration held back. Where it
is not better, the encoding by importance is used instead. So a matrix without data, a format without choices, or
useless data still give a correct encoding, and `Outcome` says which one it was.
"""

from __future__ import annotations

from dataclasses import dataclass

from thriftbit.errors import ThriftbitError
from thriftbit.formats import Format
from thriftbit.formats.format import ByteArray, FloatArray
from thriftbit.quantization.calibration_data import Calibration
from thriftbit.quantization.product_threads import fastest_products
from thriftbit.quantization.rounding import can_round, round_matrix


@dataclass(frozen=True)
class Outcome:
    """blocks: uint8 (n, row bytes). cost, plain_cost: of the rounding and of the encoding by importance, on held-back
    tokens (half of it is the expected divergence); None without held-back tokens. note: why the rounding was not used,
    "" if it was."""

    blocks: ByteArray
    cost: float | None
    plain_cost: float | None
    note: str


@fastest_products()
def encode_calibrated(
    rows: FloatArray, format: Format, calibration: Calibration, name: str, threads: int = 1
) -> Outcome:
    """rows: float32 (n, width), all rows of the container's tensor `name`. Raises as `Format.encode` does."""
    if name not in calibration.names:
        return Outcome(format.encode(rows, None, threads), None, None, "the calibration has no data on it")
    plain = format.encode(rows, calibration.importance(name), threads)
    if not can_round(format):
        return Outcome(plain, None, None, f"{format.name} leaves nothing to choose, or kernels are missing")
    try:
        rounded = round_matrix(rows, format, calibration.curvature(name), plain)
    except ThriftbitError as error:
        return Outcome(plain, None, None, str(error))
    check = calibration.check(name)
    cost, plain_cost = (check.cost(rows - format.decode(blocks)) for blocks in (rounded, plain))
    if len(check.inputs) == 0:
        return Outcome(plain, None, None, "the calibration text is too short to check on")
    if not cost <= plain_cost:
        return Outcome(plain, cost, plain_cost, "it did not pay on text held back")
    return Outcome(rounded, cost, plain_cost, "")
