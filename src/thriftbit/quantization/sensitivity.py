"""What each tensor of a model would lose in each format: the table from which plans for any budget are made.

The problem: a few tensors carry most of a model's loss. Which ones differs from model to model, and a preset cannot
know. The choice: for every tensor and every format, the expected KL divergence of the model's predictions from the
original's, in nats per token, if only this tensor had this format. For matrices in layers it follows from their
curvature (½ · trace(Eᵀ G E A), see `rounding.py`), without a pass through the model. For tensors without curvature it
is measured (`sensitivity_probe.py`). Losses of tensors nearly add up, because errors in different places are nearly
independent. How nearly is measured on a few whole plans, and stored in `Trust`.

Reading the table needs no torch.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from thriftbit.errors import ThriftbitError
from thriftbit.formats import FORMATS, Format
from thriftbit.quantization.importance import COMMONLY_MISSING
from thriftbit.quantization.plan import CUSTOM
from thriftbit.quantization.presets import formats_that_need_importance, is_quantizable
from thriftbit.sources.model import Model
from thriftbit.sources.tensor import Tensor
from thriftbit.strangers import quoted

# What every build of llama.cpp computes with, on every device. Of what else it can hold, nothing is better at its size.
CODEBOOKS = ("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S")
OFFERED = (
    *CODEBOOKS,
    "Q2_K",
    "Q3_K",
    "IQ4_XS",
    "Q4_K",
    "Q4_0",
    "IQ4_NL",
    "Q4_1",
    "Q5_K",
    "Q5_0",
    "Q5_1",
    "Q6_K",
    "Q8_0",
    "F16",
)
# Rounding is tried in one format for each matrix: the first of these that its rows allow
TRIED = ("Q4_K", "Q4_0")
PLAIN, CALIBRATED = "plain", "calibrated"
TWO_SIGMA = 2.0
LEAST_SCATTER = 0.08  # of logarithms around the line, as benchmarks/allocation.py finds it; few may agree by chance
UNTRIED_SPREAD = 0.5  # where no plan was measured
FEWEST_FOR_SLOPE = 3  # anchors


def offered_formats(tensor: Tensor) -> tuple[Format, ...]:
    """Return the formats that can hold the tensor's rows; none for tensors that stay in F32. Embedding and output have
    no importance data, so formats that need it are left out there."""
    if not is_quantizable(tensor):
        return ()
    without = formats_that_need_importance(CUSTOM) if tensor.name in COMMONLY_MISSING else ()
    formats = (FORMATS[name] for name in OFFERED if name not in without)
    return tuple(format for format in formats if format.can_encode and tensor.width % format.block_size == 0)


def tried_format(offered: Collection[str]) -> str:
    """offered: names of formats. Return the one in which rounding is tried; "" if there is none."""
    return next((name for name in TRIED if name in offered), "")


@dataclass(frozen=True)
class Loss:
    """Mean KL divergence in nats per token, predicted. 19 times in 20 it lies between low and high."""

    value: float
    low: float
    high: float

    @property
    def perplexity_rise(self) -> float:
        """Return the share by which perplexity rises at most: exp(KL divergence) − 1. The real rise is smaller, because
        the text does not follow the original's predictions either."""
        return math.expm1(self.value)


@dataclass(frozen=True)
class Anchor:
    """A whole plan that was measured. effort: how it was rounded. predicted: the sum of its tensors' losses. measured:
    mean KL divergence. spread: standard error of its logarithm, over windows of text."""

    effort: str
    predicted: float
    measured: float
    spread: float


@dataclass(frozen=True)
class Trust:
    """How sums of losses become predictions: log(loss) = intercept + slope · log(sum), ± `spread`."""

    intercept: float = 0.0
    slope: float = 1.0
    spread: float = UNTRIED_SPREAD

    @classmethod
    def of(cls, anchors: Sequence[Anchor], effort: str) -> Trust:
        """Return a line through the anchors. The plain anchors give the slope, and anchors of this effort, if any, the
        height. The spread includes their scatter around the line and the uncertainty from the text. An effort above
        CALIBRATED has no anchors; it is assumed to lose no more."""
        anchors = [
            anchor for anchor in anchors if anchor.measured > 0 and anchor.predicted > 0
        ]  # zero has no logarithm
        plain = [anchor for anchor in anchors if anchor.effort == PLAIN] or list(anchors)
        own = [anchor for anchor in anchors if (anchor.effort == PLAIN) == (effort == PLAIN)] or plain
        if not own:
            return cls()
        slope, scatter = _slope(plain)
        off = [math.log(anchor.measured) - slope * math.log(anchor.predicted) for anchor in own]
        text = fmean(anchor.spread**2 for anchor in own)
        return cls(fmean(off), slope, math.sqrt(max(scatter, LEAST_SCATTER**2) + text))

    def predict(self, total: float) -> Loss:
        """total: the sum of losses."""
        if total <= 0:
            return Loss(0.0, 0.0, 0.0)
        value = math.exp(self.intercept + self.slope * math.log(total))
        factor = math.exp(TWO_SIGMA * self.spread)
        return Loss(value, value / factor, value * factor)

    def total_for(self, loss: float) -> float:
        """Return the sum of losses for which the high end of the prediction is just this."""
        return math.exp((math.log(loss) - TWO_SIGMA * self.spread - self.intercept) / self.slope) if loss > 0 else 0.0


def _slope(anchors: Sequence[Anchor]) -> tuple[float, float]:
    """Return the slope of log(measured) by log(predicted), and the variance around that line."""
    x = [math.log(anchor.predicted) for anchor in anchors]
    y = [math.log(anchor.measured) for anchor in anchors]
    middle_x, middle_y = fmean(x), fmean(y)
    varied = sum((a - middle_x) ** 2 for a in x)
    slope = 1.0
    if len(anchors) >= FEWEST_FOR_SLOPE and varied > 1:
        slope = sum((a - middle_x) * (b - middle_y) for a, b in zip(x, y, strict=True)) / varied
    left = sum((b - middle_y - slope * (a - middle_x)) ** 2 for a, b in zip(x, y, strict=True))
    return slope, left / max(len(anchors) - 2, 1)


@dataclass(frozen=True)
class Sensitivities:
    """The table of one model.

    fingerprint: the model's. losses: nats per token for each tensor that can be quantized and each format offered for
    it, encoded block by block with importance. savings: for matrices, the factor by which calibrated rounding changes
    the loss, in the format it was tried in. by_format: for each such format, how the factor of another format differs.
    anchors: plans that were measured.
    """

    fingerprint: str
    losses: Mapping[str, Mapping[str, float]]
    savings: Mapping[str, float]
    by_format: Mapping[str, Mapping[str, float]]
    anchors: tuple[Anchor, ...]

    def trust(self, effort: str = PLAIN) -> Trust:
        return Trust.of(self.anchors, effort)

    def loss_of(self, tensor: str, format_name: str, effort: str = PLAIN) -> float:
        """Return nats per token; 0 for tensors and formats that lose nothing."""
        losses = self.losses.get(tensor, {})
        loss = losses.get(format_name, 0.0)
        if effort == PLAIN or tensor not in self.savings:
            return loss
        differs = self.by_format.get(tried_format(losses), {}).get(format_name, 1.0)
        return loss * min(self.savings[tensor] * differs, 1.0)

    def total(self, formats: Mapping[str, str], effort: str = PLAIN) -> float:
        return math.fsum(self.loss_of(tensor, name, effort) for tensor, name in formats.items())

    def predict(self, formats: Mapping[str, str], effort: str = PLAIN) -> Loss:
        """formats: of each tensor. Return what a model in these formats would lose."""
        return self.trust(effort).predict(self.total(formats, effort))

    def check_belongs(self, model: Model) -> None:
        if self.fingerprint != model.fingerprint:
            raise ThriftbitError(
                f"{model.source}: the map is of another model; run thriftbit map {quoted(model.source)}"
            )

    def __repr__(self) -> str:
        return f"Sensitivities({len(self.losses)} tensors, {len(self.anchors)} plans measured)"
