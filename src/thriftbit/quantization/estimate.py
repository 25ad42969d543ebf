"""How long calibrating and tuning take here, estimated beforehand. Needs the extra `torch`.

Nearly all of the work is matrix products. The work is counted from the shapes of the model's matrices, and a short
trial measures how fast this machine multiplies, in bfloat16 for what passes the network (`network/products.py`). Expect
an error of a third: different products run at different speeds, and other programs come and go.
"""

from __future__ import annotations

from thriftbit.machine.identity import usable_cores
from thriftbit.network.threads import multiplications_per_second
from thriftbit.quantization.engine.threads import one_thread
from thriftbit.quantization.moments import LARGEST_ROWS
from thriftbit.quantization.rounding import TURNS
from thriftbit.sources.architectures.rows import EMBEDDING, OUTPUT
from thriftbit.sources.model import Model
from thriftbit.sources.tensor import Tensor

# Of the speed of a plain product, as measured on models of 7, 135 and 1,500 million weights
EFFICIENCY = 0.6
WORTH_WORKERS = 2e12  # multiplications: a minute, where the start of processes takes seconds


def calibration_seconds(model: Model, tokens: int, workers: int = 1) -> float:
    """tokens: of the calibration text. workers: processes that compute at once."""
    return _seconds(*_calibration_work(model, tokens)) / workers


def worthwhile_workers(model: Model, tokens: int) -> int:
    """tokens: of the calibration text. Return how many processes are worth their start: a core each, or only this one
    for work of seconds."""
    return usable_cores() if sum(_calibration_work(model, tokens)) > WORTH_WORKERS else 1


def _calibration_work(model: Model, tokens: int) -> tuple[float, float]:
    """Return multiplications in short products and in others."""
    by_name = {tensor.name: tensor for tensor in model.tensors}
    vocabulary = by_name.get(OUTPUT, by_name[EMBEDDING])
    passes = vocabulary.parameters + sum(tensor.parameters for tensor in _matrices(model))
    # forward, forward again, and back; of the vocabulary, logits twice and gradients once
    return 3 * passes * tokens, sum(map(_moments, _matrices(model))) * tokens


def tuning_seconds(model: Model, tokens: int, workers: int = 1) -> float:
    """tokens: of the text that the model was calibrated on. workers: processes that compute at once."""
    matrices = _matrices(model)
    # the original once; the quantized model once, and as far as the matrices in question
    passes = 3 * sum(tensor.parameters for tensor in matrices) * tokens
    work = sum(_aim(tensor) * tokens + _rounding(tensor) for tensor in matrices)
    return _seconds(passes, work) / workers


def _matrices(model: Model) -> list[Tensor]:
    return [tensor for tensor in model.tensors if tensor.name.startswith("blk.") and len(tensor.shape) > 1]


def _seconds(short: float, plain: float) -> float:
    """Return the seconds for this number of multiplications, in products of either kind."""
    with one_thread():
        seconds = short / multiplications_per_second(short=True) + plain / multiplications_per_second()
    return seconds / EFFICIENCY


def _moments(tensor: Tensor) -> float:
    """Return the multiplications for one token: half of both moments."""
    n, width = tensor.matrix_rows, tensor.width
    return 0.5 * (width**2 + (n**2 if n <= LARGEST_ROWS else 0)) * (tensor.rows // n)


def _aim(tensor: Tensor) -> float:
    """Return the multiplications for one token: half of a moment, and the target."""
    return 0.5 * tensor.width**2 + tensor.width * min(tensor.width, 2 * tensor.matrix_rows)


def _rounding(tensor: Tensor) -> int:
    """Return the multiplications for rounding once: gradients by columns and rows, twice in every turn, and about as
    much again between them."""
    n, width = tensor.matrix_rows, tensor.width
    return 4 * TURNS * tensor.parameters * (width + (n if n <= LARGEST_ROWS else 0))
