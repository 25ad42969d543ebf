"""How far the weights of a preset are from the model's own: what one measured level needs to predict the others.

A small change of the weights changes the model's predictions by a quadratic form of it, so the loss of a file goes with
the squared error of its weights. How much a squared error costs differs from model to model, and one measured file of a
model tells that. Between the files of one model, the relative squared errors are compared: for each matrix its squared
error over its squares, and of these the mean, each matrix counted by its weights. That every relative error costs the
same is the linearity that HIGGS found (Malinovskii et al., 2024, arXiv 2411.17525).

Only some rows of each matrix are encoded: the relative error hardly differs from row to row. Of experts a few are
enough. The memory is that of the rows, and a model of billions of weights takes a minute.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping

import numpy as np

from thriftbit.formats import format_named
from thriftbit.progress import Progress, no_progress
from thriftbit.quantization.plan import make_plan
from thriftbit.quantization.presets import PRESETS, is_quantizable
from thriftbit.sources.model import Model
from thriftbit.sources.tensor import FloatArray, Tensor

_SAMPLE_WEIGHTS = 1 << 16  # of each matrix
_PIECES = 8  # runs of rows, spread over the matrix
_EMBEDDING = "token_embd.weight"


def weight_errors(model: Model, presets: Iterable[str], progress: Progress = no_progress) -> dict[str, float]:
    """presets: of llama.cpp's. progress: see `Progress`. Returns for each, the mean relative squared error of its
    weights; 0 for a preset that changes none. Encoded block by block, without importance data: the same for every
    preset.

    Raises ThriftbitError if the weights cannot be read."""
    plans = {
        preset: make_plan(model, preset, importance=PRESETS[preset].wants_importance).formats for preset in presets
    }
    tensors = [tensor for tensor in model.tensors if is_quantizable(tensor) and _counts(model, tensor)]
    totals = dict.fromkeys(plans, 0.0)
    for number, tensor in enumerate(tensors):
        errors = relative_errors(tensor, {formats[tensor.name] for formats in plans.values()})
        for preset, formats in plans.items():
            totals[preset] += tensor.parameters * errors[formats[tensor.name]]
        progress(tensor.name, (number + 1) / len(tensors))
    parameters = sum(tensor.parameters for tensor in tensors)
    return {preset: total / parameters for preset, total in totals.items()}


def relative_errors(tensor: Tensor, formats: Iterable[str]) -> dict[str, float]:
    """Return for each format, squared error over squares, of some of the tensor's rows."""
    rows = _sample(tensor)
    power = float(np.sum(rows.astype(np.float64) ** 2))
    errors = {}
    for name in formats:
        format = format_named(name)
        decoded = format.decode(format.encode(rows, threads=os.cpu_count() or 1))
        errors[name] = float(np.sum((decoded.astype(np.float64) - rows) ** 2)) / power if power else 0.0
    return errors


def predicted_losses(errors: Mapping[str, float], measured: Mapping[str, float]) -> dict[str, float]:
    """errors: of `weight_errors`. measured: the loss of some of these presets, in nats or as a share that is small.
    Returns the loss of every preset: proportional to its error, at the height that the measured ones give, each the
    more the nearer its error is."""
    known = {preset: loss for preset, loss in measured.items() if loss > 0 and errors.get(preset, 0) > 0}
    if not known:
        return {}
    return {preset: _predicted(error, errors, known) for preset, error in errors.items()}


def _predicted(error: float, errors: Mapping[str, float], known: Mapping[str, float]) -> float:
    if error <= 0:
        return 0.0
    nearness = {preset: 1 / (0.1 + abs(math.log(errors[preset] / error))) for preset in known}
    heights = sum(near * math.log(known[preset] / errors[preset]) for preset, near in nearness.items())
    return error * math.exp(heights / sum(nearness.values()))


def _counts(model: Model, tensor: Tensor) -> bool:
    """Return whether the tensor takes part in every token: an embedding that is only looked up hardly does."""
    return tensor.name != _EMBEDDING or all(other.name != "output.weight" for other in model.tensors)


def _sample(tensor: Tensor) -> FloatArray:
    count = max(1, min(tensor.rows, _SAMPLE_WEIGHTS // tensor.width))
    run = max(1, count // _PIECES)
    starts = np.unique(np.linspace(0, tensor.rows - run, min(_PIECES, count)).astype(int))
    return np.concatenate([tensor.load(int(start), int(start) + run) for start in starts])
