"""How long learning from text takes here, told before it begins. Needs the extra `torch`.

Nearly all of it is products of matrices, so the work is counted from the shapes of the model's, and how fast this
machine multiplies is tried. A third more or less is as good as it gets: what is counted runs at different speeds, and
who else is at work changes.
"""

from __future__ import annotations

from thriftbit.network.threads import multiplications_per_second
from thriftbit.quantization.calibration import LARGEST_ROWS
from thriftbit.quantization.rounding import TURNS
from thriftbit.sources.architectures.architecture import EMBEDDING, OUTPUT
from thriftbit.sources.model import Model
from thriftbit.sources.tensor import Tensor

# Of the speed of a plain product, as measured on models of 7 and 135 million weights
EFFICIENCY = 0.5


def calibration_seconds(model: Model, tokens: int) -> float:
    """tokens: of the text that is learnt from"""
    by_name = {tensor.name: tensor for tensor in model.tensors}
    vocabulary = by_name.get(OUTPUT, by_name[EMBEDDING])
    work = 3 * vocabulary.parameters + sum(map(_calibrating, _matrices(model)))  # logits twice, gradients once
    return _seconds(work * tokens)


def tuning_seconds(model: Model, tokens: int) -> float:
    """tokens: of the text that the model was calibrated on"""
    return _seconds(sum(_tuning(tensor) * tokens + _rounding(tensor) for tensor in _matrices(model)))


def describe_seconds(seconds: float) -> str:
    """-> "2 minutes", "1.5 hours": as rough as an estimate is"""
    minutes = seconds / 60
    if minutes < 1.5:
        return "a minute"
    return f"{minutes:.0f} minutes" if minutes < 90 else f"{minutes / 60:.2g} hours"


def _matrices(model: Model) -> list[Tensor]:
    return [tensor for tensor in model.tensors if tensor.name.startswith("blk.") and len(tensor.shape) > 1]


def _seconds(multiplications: int) -> float:
    return multiplications / (EFFICIENCY * multiplications_per_second())


def _calibrating(tensor: Tensor) -> int:
    """-> multiplications for a token: forward, forward again, back, and both moments"""
    n, width = tensor.matrix_rows, tensor.width
    moments = width**2 + (n**2 if n <= LARGEST_ROWS else 0)
    return 3 * tensor.parameters + moments * (tensor.rows // n)


def _tuning(tensor: Tensor) -> int:
    """-> for a token: the original once, the quantized model once for every stage and once more, and two moments"""
    return 6 * tensor.parameters + 2 * tensor.width**2


def _rounding(tensor: Tensor) -> int:
    """-> once: gradients by columns and rows, twice in every turn, and about as much again between them"""
    n, width = tensor.matrix_rows, tensor.width
    return 4 * TURNS * tensor.parameters * (width + (n if n <= LARGEST_ROWS else 0))
