"""Losses of tensors without curvature: the embedding, the output matrix, experts, fused matrices. Needs `torch`.

The output matrix is measured in every format: its input is known after one pass through the model. Of the others, each
group of tensors (one role; the embedding) is measured in one or two formats, with one pass each. The loss in other
formats, and each tensor's share of it, follow from squared errors, because a small loss is proportional to them. For
the embedding, a token's error counts as often as the token occurs. Elsewhere errors are relative to the weights, and
of large tensors some rows speak for all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from thriftbit.formats import Format
from thriftbit.formats.format import FloatArray
from thriftbit.network.weights import Weights
from thriftbit.quantization.calibration_data import Calibration
from thriftbit.quantization.sensitivity import offered_formats
from thriftbit.quantization.sensitivity_probe import Listener, encoded, with_formats
from thriftbit.sources.model import Model
from thriftbit.sources.tensor import Tensor

CHUNK_BYTES = 8 << 20  # of float32 rows
MOST_PIECES = 4  # of so many bytes, in which a tensor's errors are measured
# Tried, of what the rows allow: errors far above what is lost in computing, and far below those that break a model.
TRIALS = (("Q3_K", "Q4_K"), ("Q4_0", "Q5_0"))

Losses = Mapping[str, float]


@dataclass(frozen=True)
class Outside:
    """The tensors of a model without curvature. output: the matrix after the layers, None if it stays in F32.
    embedding: likewise; the same tensor where the two are tied. groups: all others, by role."""

    output: Tensor | None
    embedding: Tensor | None
    groups: Mapping[str, tuple[Tensor, ...]]

    @classmethod
    def of(cls, model: Model, calibration: Calibration) -> Outside:
        weights = Weights(model)
        ends = (weights.embedding.name, weights.output.name)
        groups: dict[str, tuple[Tensor, ...]] = {}
        for tensor in model.tensors:
            if offered_formats(tensor) and tensor.name not in (*ends, *calibration.names):
                role = tensor.role or tensor.name.split(".")[-2]
                groups[role] = (*groups.get(role, ()), tensor)
        output, embedding = (t if offered_formats(t) else None for t in (weights.output, weights.embedding))
        return cls(output, embedding, groups)


def output_losses(model: Model, output: Tensor, calibration: Calibration, listener: Listener) -> dict[str, float]:
    """Return nats per token, for each format offered."""
    formats = _holding(output)
    variants = []
    for format in formats:
        weights = Weights(model)
        weights.output = encoded(output, format.name, calibration)
        variants.append((weights, listener.hidden))
    found = listener.divergences(variants).mean(axis=1)
    return {format.name: float(loss) for format, loss in zip(formats, found, strict=True)}


def embedding_losses(
    model: Model,
    embedding: Tensor,
    calibration: Calibration,
    listener: Listener,
) -> dict[str, float]:
    """Return nats per token, for each format offered, without the effect of the same errors in a tied output matrix."""
    tokens, counts = np.unique(listener.windows, return_counts=True)
    rows = np.concatenate([embedding.load(int(token), int(token) + 1) for token in tokens])
    shares = counts / counts.sum()
    errors = {f.name: float(np.square(_error(f, rows)).sum(axis=1) @ shares) for f in _holding(embedding)}
    variants = []
    for trial in _trials(embedding):
        tensors = (encoded(t, trial, calibration) if t.name == embedding.name else t for t in model.tensors)
        weights = Weights(replace(model, tensors=tuple(tensors)))
        weights.output = Weights(model).output
        variants.append((weights, listener.pass_layers(weights)))
    measured = listener.divergences(variants).mean(axis=1)
    return _in_proportion(errors, dict(zip(_trials(embedding), measured.tolist(), strict=True)))


def group_losses(
    model: Model,
    group: Sequence[Tensor],
    calibration: Calibration,
    listener: Listener,
) -> dict[str, Losses]:
    """group: tensors of one role. Return for each tensor nats per token, for each format offered."""
    trials = {tensor.name: _trials(tensor)[0] for tensor in group}
    weights = with_formats(model, trials, calibration)
    measured = float(listener.divergences([(weights, listener.pass_layers(weights))]).mean())
    errors = {tensor.name: {f.name: _relative_error(tensor, f) for f in _holding(tensor)} for tensor in group}
    total = sum(errors[name][trial] for name, trial in trials.items())
    factor = measured / total if total > 0 else 0.0
    return {name: {each: factor * error for each, error in own.items()} for name, own in errors.items()}


def _trials(tensor: Tensor) -> tuple[str, ...]:
    offered = {format.name for format in _holding(tensor)}
    return next((trials for trials in TRIALS if offered.issuperset(trials)), (next(iter(sorted(offered))),))


def _holding(tensor: Tensor) -> list[Format]:
    """Return the formats offered that can hold the tensor's largest weight."""
    largest = max(float(np.abs(tensor.load(*piece)).max()) for piece in tensor.chunks(CHUNK_BYTES))
    return [format for format in offered_formats(tensor) if largest <= format.largest]


def _in_proportion(errors: Mapping[str, float], measured: Mapping[str, float]) -> dict[str, float]:
    ratios = [measured[name] / errors[name] for name in measured if measured[name] > 0 and errors[name] > 0]
    factor = math.exp(sum(map(math.log, ratios)) / len(ratios)) if ratios else 0.0
    return {name: factor * error for name, error in errors.items()}


def _relative_error(tensor: Tensor, format: Format) -> float:
    lost = size = 0.0
    pieces = list(tensor.chunks(CHUNK_BYTES))
    for number in np.unique(np.linspace(0, len(pieces) - 1, MOST_PIECES).round().astype(int)):
        piece = pieces[number]
        rows = tensor.load(*piece)
        lost += float(np.square(_error(format, rows), dtype=np.float64).sum())
        size += float(np.square(rows, dtype=np.float64).sum())
    return lost / size if size > 0 else 0.0


def _error(format: Format, rows: FloatArray) -> FloatArray:
    errors: FloatArray = rows - format.decode(format.encode(rows))
    return errors
