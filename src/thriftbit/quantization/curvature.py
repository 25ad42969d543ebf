"""The curvature of a matrix: how the model's predictions depend on errors in its weights, in Kronecker factors.

E is the error of a matrix, A the second moment of its inputs, and G the second moment of the gradients of the model's
log-probabilities by its outputs. Then the divergence that the error causes is about ½ · trace(Eᵀ G E A): the Fisher
information in Kronecker factors (arXiv 1503.05671).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thriftbit.errors import ThriftbitError
from thriftbit.formats.format import FloatArray

# A moment of few tokens is uncertain. A share of its mean diagonal is added to the diagonal. Each number of the
# diagonal also grows by a share of itself, in proportion to size of the matrix ÷ tokens. With few tokens, the moment
# thus becomes its diagonal, which is importance. Adding one number for all would hide the rest where one huge token
# dominates.
COLUMN_DAMPING, ROW_DAMPING = 0.01, 0.03
COLUMN_CHANCE, ROW_CHANCE = 2.0, 3.0
LARGE = 512  # a matrix with more rows is factored in pieces of this many
STRETCH = 512  # columns whose gradients are computed in one large product, which is faster than many small ones


@dataclass(frozen=True)
class Curvature:
    """columns: float32 (width, width), the second moment of the matrix's inputs. rows: float32 (n, n), the second
    moment of the gradients by its outputs; None for the identity. Neither has to be regular.

    tokens: how many tokens they were measured on; None for so many that chance plays no role. Where tokens have weights
    w, this is the effective number (Σ w)² ÷ Σ w²: the number of equally weighted tokens with the same variance.
    """

    columns: FloatArray
    rows: FloatArray | None = None
    tokens: float | None = None

    def damped(self) -> Curvature:
        """Return a positive definite curvature, scaled to a diagonal around one, because products of small numbers
        leave the range of float32. Raises ThriftbitError for values that are not finite."""
        chance = 1 / self.tokens if self.tokens else 0.0
        columns, _ = damped(self.columns, COLUMN_DAMPING, COLUMN_CHANCE * chance * len(self.columns))
        if self.rows is None:
            return Curvature(columns)
        rows, _ = damped(self.rows, ROW_DAMPING, ROW_CHANCE * chance * len(self.rows))
        return Curvature(columns, rows)

    def cost(self, errors: FloatArray) -> float:
        """errors: float32 (n, width). Return trace(Eᵀ G E A), float64."""
        by_columns = errors @ self.columns
        by_rows = errors if self.rows is None else self.rows @ errors
        return float(np.einsum("ij,ij->", by_columns, by_rows, dtype=np.float64))

    def gradients(self, errors: FloatArray, columns: int) -> Iterator[tuple[slice, FloatArray]]:
        """Yield pieces of `columns` columns, with half of the derivative of the cost by their errors, (columns, n).

        errors: (width, n). Before the next piece is asked for, the caller may change the errors in the piece's columns
        only.
        """
        width, size = len(errors), max(1, STRETCH // columns) * columns
        for first in range(0, width, size):
            stretch = slice(first, min(first + size, width))
            before = errors[stretch].copy()
            at_first = self.columns[stretch] @ errors
            for start in range(first, stretch.stop, columns):
                piece, done = slice(start, min(start + columns, width)), slice(first, start)
                gradient = at_first[start - first : piece.stop - first]
                gradient += self.columns[piece, done] @ (errors[done] - before[: start - first])
                if self.rows is not None:
                    gradient = gradient @ self.rows
                yield piece, gradient


def damped(moment: FloatArray, share_of_mean: float, share_of_own: float) -> tuple[FloatArray, float]:
    """Add these shares of the mean diagonal, and of the diagonal itself, to the diagonal of `moment`, float32 (n, n).
    Return the result divided by the mean of the old diagonal, and that mean."""
    if not np.isfinite(moment).all():
        raise ThriftbitError("calibration data with values that are not finite; calibrate again")
    mean = float(moment.diagonal().mean(dtype=np.float64))
    if not mean > 0:
        return np.eye(len(moment), dtype=np.float32), 1.0
    result: FloatArray = moment + moment.T
    result *= np.float32(0.5 / mean)
    diagonal = np.diag_indices(len(result))
    result[diagonal] += result[diagonal] * np.float32(share_of_own) + np.float32(share_of_mean)
    return result, mean


def factored(matrix: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return L, unit lower triangular, and D with matrix = L · diag(D) · Lᵀ. ThriftbitError if it is not definite."""
    lower = _cholesky(matrix)
    pivots = lower.diagonal().copy()
    lower /= pivots
    return lower.astype(np.float32, copy=False), (pivots * pivots).astype(np.float32)


def _cholesky(matrix: FloatArray) -> NDArray[np.floating[Any]]:
    """Return the lower triangular factor: of a large matrix in float32 where that works, else in float64."""
    if len(matrix) > LARGE:
        with suppress(np.linalg.LinAlgError):
            return _large_cholesky(matrix)
    exact: NDArray[np.float64] = matrix.astype(np.float64)
    damping = 1e-6 * float(exact.diagonal().mean())
    for _ in range(6):
        try:
            return np.linalg.cholesky(exact)
        except np.linalg.LinAlgError:  # rounding took the last of what damping gave
            exact[np.diag_indices(len(exact))] += damping
            damping *= 10
    raise ThriftbitError("calibration data that is no second moment; calibrate again")


def _large_cholesky(matrix: FloatArray) -> FloatArray:
    """Return the factor in float32, in a third of the time and a quarter of the memory of float64. LinAlgError where
    rounding errors make the matrix indefinite."""
    lower = np.tril(matrix)
    for start in range(0, len(lower), LARGE):
        stop = start + LARGE
        corner = np.linalg.cholesky(lower[start:stop, start:stop].astype(np.float64))
        lower[start:stop, start:stop] = corner
        below = lower[stop:, start:stop]
        below[:] = below @ np.linalg.inv(corner).T.astype(np.float32)
        for column in range(stop, len(lower), LARGE):
            rows = below[column - stop :]
            lower[column:, column : column + LARGE] -= rows @ rows[:LARGE].T
    return lower
