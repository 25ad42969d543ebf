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

    def damped(self, *, in_place: bool = False) -> Curvature:
        """Return a positive definite curvature, scaled to a diagonal around one, because products of small numbers
        leave the range of float32. in_place: overwrite these moments, which are symmetric to the last bit. Raises
        ThriftbitError for values that are not finite."""
        chance = 1 / self.tokens if self.tokens else 0.0
        columns, _ = damped(self.columns, COLUMN_DAMPING, COLUMN_CHANCE * chance * len(self.columns), in_place)
        if self.rows is None:
            return Curvature(columns)
        rows, _ = damped(self.rows, ROW_DAMPING, ROW_CHANCE * chance * len(self.rows), in_place)
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


def damped(
    moment: FloatArray, share_of_mean: float, share_of_own: float, in_place: bool = False
) -> tuple[FloatArray, float]:
    """Add these shares of the mean diagonal, and of the diagonal itself, to the diagonal of `moment`, float32 (n, n).
    Return the result divided by the mean of the old diagonal, and that mean. in_place: the result is in `moment`, which
    is symmetric to the last bit."""
    if not all(np.isfinite(row).all() for row in moment):
        raise ThriftbitError("calibration data with values that are not finite; calibrate again")
    mean = float(moment.diagonal().mean(dtype=np.float64))
    if not mean > 0:
        return np.eye(len(moment), dtype=np.float32), 1.0
    result: FloatArray = moment if in_place else moment + moment.T
    result *= np.float32((1.0 if in_place else 0.5) / mean)
    diagonal = np.diag_indices(len(result))
    result[diagonal] += result[diagonal] * np.float32(share_of_own) + np.float32(share_of_mean)
    return result, mean


def factored(matrix: FloatArray, *, in_place: bool = False) -> tuple[FloatArray, FloatArray]:
    """Return L, unit lower triangular, and D with matrix = L · diag(D) · Lᵀ. in_place: L may be in the matrix.
    ThriftbitError if it is not definite."""
    lower = _cholesky(matrix if in_place else matrix.copy())
    pivots = lower.diagonal().copy()
    lower /= pivots
    return lower.astype(np.float32, copy=False), (pivots * pivots).astype(np.float32)


def _cholesky(matrix: FloatArray) -> NDArray[np.floating[Any]]:
    """Return the lower triangular factor: of a large matrix in its own memory where that works, else in float64."""
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
    """Return the factor in the matrix's own memory, float32, in a third of the time of float64. LinAlgError where
    rounding errors make the matrix indefinite; the matrix is as it was then."""
    diagonal, lower = matrix.diagonal().copy(), matrix
    try:
        for start in range(0, len(lower), LARGE):
            _eliminate(lower, start)
    except np.linalg.LinAlgError:
        for row in range(len(matrix)):  # above the diagonal, nothing was changed
            matrix[row:, row] = matrix[row, row:]
        matrix[np.diag_indices(len(matrix))] = diagonal
        raise
    for row in range(len(lower)):
        lower[row, row + 1 :] = 0
    return lower


def _eliminate(lower: FloatArray, start: int) -> None:
    """One step of the factoring, in place: LARGE columns from `start` on. What is above the diagonal stays."""
    stop = min(start + LARGE, len(lower))
    block = lower[start:stop, start:stop]
    own = np.tri(stop - start, dtype=np.bool_)
    corner = np.linalg.cholesky(np.where(own, block, 0).astype(np.float64))  # which reads the lower triangle
    np.copyto(block, corner, where=own, casting="same_kind")
    below = lower[stop:, start:stop]
    below[:] = below @ np.linalg.inv(corner).T.astype(np.float32)
    for column in range(stop, len(lower), LARGE):
        rows = below[column - stop :]
        change = rows @ rows[:LARGE].T
        change[: change.shape[1]] *= np.tri(change.shape[1], dtype=np.float32)
        lower[column:, column : column + LARGE] -= change
