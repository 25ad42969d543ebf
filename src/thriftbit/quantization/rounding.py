"""Rounding a matrix as a whole: choose a value of the format for each weight, so that the model's predictions change
least.

The problem: `Format.encode` fits every block alone, as if errors in different weights were unrelated. They are related.
Where inputs are correlated, an error in one column can be compensated in another. Where outputs act together on the
prediction, an error in one row can be compensated in another. E is the error of a matrix, A the second moment of its
inputs, and G the second moment of the gradients of the model's log-probabilities by its outputs. Then the divergence
that the error causes is about ½ · trace(Eᵀ G E A): the Fisher information in Kronecker factors (arXiv 1503.05671), used
for rounding as in 2505.22988.

The choice: begin with the encoder's scales, and feed errors back over columns and rows (2210.17323 does it over
columns). Then, in turns, fit d and d_min of super-blocks to what they hold, choose the scale of every block again
together with its codes, and let single codes move downhill. Every step lowers the same cost, on the values that the
file will hold.

Without rows (G unknown or too large), G is 1. Left out: the effect of other matrices' errors on this one (`tuning`
changes the target instead).
"""

from __future__ import annotations

from thriftbit.errors import ThriftbitError
from thriftbit.formats import Format
from thriftbit.formats.format import ByteArray, FloatArray, _native
from thriftbit.formats.grid import Grid
from thriftbit.quantization.curvature import Curvature
from thriftbit.quantization.engine.threads import one_thread
from thriftbit.quantization.scalar_rounding import ScalarState
from thriftbit.quantization.vector_rounding import VectorState

TURNS = 3  # of choosing scales and moving codes


def can_round(format: Format) -> bool:
    """Whether the format has something to choose, and the compiled kernels are there."""
    return format.grid is not None and _native is not None


@one_thread()
def round_matrix(
    weights: FloatArray,
    format: Format,
    curvature: Curvature,
    blocks: ByteArray,
    *,
    turns: int = TURNS,
    spend: bool = False,
) -> ByteArray:
    """Return uint8 (n, row bytes): blocks that cost less, by `curvature`, than the given ones.

    weights: float32 (n, width). blocks: the result of `format.encode`. spend: overwrite the curvature, whose moments
    are symmetric to the last bit: less memory. The result is the same on every run. On another
    machine, matrix products may differ in the last bit, and so may codes. Raises ThriftbitError for a format without a
    grid, or without compiled kernels.
    """
    if not can_round(format):
        raise ThriftbitError(f"{format.name}: has nothing to choose, or the compiled kernels are missing")
    kind = ScalarState if isinstance(format.grid, Grid) else VectorState
    state = kind.of(weights, format, curvature.damped(in_place=spend), blocks)
    state.feed_back()
    for _ in range(turns):
        state.fit_steps()
        state.choose_scales()
        state.descend()
    return state.blocks()
