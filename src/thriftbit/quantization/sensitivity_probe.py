"""How far a model's predictions move when some of its tensors are quantized.

It is used for losses without curvature, and for whole plans, which correct the sums of losses. It is the comparison of
`measurement/comparison.py`, reduced to the mean divergence. The pass through the layers is left out for changes that do
not affect them.

Needs the extra `torch`. Memory is as in `measurement/comparison.py`: the hidden states, one layer, one range of the
vocabulary. Quantized weights are encoded and decoded when they are read, and never kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from thriftbit.formats import Format, format_named
from thriftbit.formats.format import FloatArray
from thriftbit.network.batches import BATCH_TOKENS
from thriftbit.network.network import Network
from thriftbit.network.weights import Weights
from thriftbit.quantization.calibration_data import Calibration
from thriftbit.sources.model import Model
from thriftbit.sources.tensor import Tensor

VOCABULARY_BYTES = 32 << 20  # of the output matrix in memory at once, as float32
POSITIONS = 512  # that meet a range of the vocabulary at once


@dataclass(frozen=True)
class Encoded:
    """Reads rows of one of a tensor's matrices, encoded and decoded. importance: (matrices, width)."""

    tensor: Tensor
    format: Format
    importance: FloatArray | None

    def __call__(self, start: int, stop: int) -> FloatArray:
        importance = None if self.importance is None else self.importance[start // self.tensor.matrix_rows]
        return self.format.decode(self.format.encode(self.tensor.load(start, stop), importance))


def encoded(tensor: Tensor, format_name: str, calibration: Calibration) -> Tensor:
    """Return the tensor as it comes back from the format, encoded when it is read."""
    format = format_named(format_name)
    known = tensor.name in calibration.names | calibration.experts
    importance = calibration.importance(tensor.name).reshape(-1, tensor.width) if known else None
    return replace(tensor, read=Encoded(tensor, format, importance))


def with_formats(model: Model, formats: Mapping[str, str], calibration: Calibration) -> Weights:
    """Return the model with these tensors quantized."""
    tensors = (encoded(t, formats[t.name], calibration) if t.name in formats else t for t in model.tensors)
    return Weights(replace(model, tensors=tuple(tensors)))


class Listener:
    """The predictions of an original on some windows of text, and the divergence of others from them.

    windows: int64 (windows, length). Only the second half of a window counts, as in measurements.
    """

    def __init__(
        self,
        network: Network,
        original: Weights,
        windows: NDArray[np.int64],
    ) -> None:
        self.windows = windows
        self._network, self._original = network, original
        count = max(1, BATCH_TOKENS // windows.shape[1])
        self._batches = [torch.from_numpy(windows[i : i + count]) for i in range(0, len(windows), count)]
        self._scored = slice(windows.shape[1] // 2, windows.shape[1] - 1)
        self.hidden = self.pass_layers(original)

    @torch.no_grad()
    def pass_layers(self, weights: Weights) -> torch.Tensor:
        """Return float32 (positions, width): what leaves the last layer, at the positions that count."""
        network = self._network
        states = []
        for number, batch in enumerate(self._batches):
            network.texts = number
            states.append(network.embed(weights, batch))
        for index in range(network.layers):
            with network.layer(index, weights) as layer:
                for number, hidden in enumerate(states):
                    network.texts = number
                    states[number] = network.call(index, layer, hidden)
        return torch.cat([hidden[:, self._scored].flatten(0, 1) for hidden in states])

    @torch.no_grad()
    def divergences(self, variants: Sequence[tuple[Weights, torch.Tensor]]) -> NDArray[np.float64]:
        """variants: weights, of which only the part after the layers is used, each with what left the layers. Return
        (variants, windows): mean KL divergence from the original, nats per token."""
        positions = len(self.hidden)
        normaliser = torch.full((positions,), -torch.inf, dtype=torch.float64, device=self.hidden.device)
        for start, stop in self._ranges():
            head = self._network.head(self._original, start, stop)
            for piece in _pieces(positions):
                found = head(self.hidden[piece]).logsumexp(dim=1).double()
                normaliser[piece] = torch.logaddexp(normaliser[piece], found)
        others = [torch.full_like(normaliser, -torch.inf) for _ in variants]
        crosses = [torch.zeros_like(normaliser) for _ in variants]
        for start, stop in self._ranges():
            head = self._network.head(self._original, start, stop)
            heads = [self._network.head(weights, start, stop) for weights, _ in variants]
            for piece in _pieces(positions):
                reference = head(self.hidden[piece])
                p = (reference - normaliser[piece, None].float()).exp()
                for own, (_, hidden), other, cross in zip(heads, variants, others, crosses, strict=True):
                    logits = own(hidden[piece])
                    other[piece] = torch.logaddexp(other[piece], logits.logsumexp(dim=1).double())
                    cross[piece] += (p * (reference - logits)).sum(dim=1, dtype=torch.float64)
        apart = [cross - normaliser + other for cross, other in zip(crosses, others, strict=True)]
        means = torch.stack(apart).clamp(min=0).reshape(len(variants), len(self.windows), -1).mean(dim=2)
        values: NDArray[np.float64] = means.cpu().numpy()
        return values

    def _ranges(self) -> list[tuple[int, int]]:
        vocabulary = self._original.output.rows
        step = max(1, VOCABULARY_BYTES // (4 * self._network.width))
        return [(start, min(start + step, vocabulary)) for start in range(0, vocabulary, step)]


def _pieces(positions: int) -> list[slice]:
    return [slice(first, first + POSITIONS) for first in range(0, positions, POSITIONS)]
