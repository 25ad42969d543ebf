"""The loss of a precision, from the best source there is.

The sources, best first: a measurement of a file of this model; the model's own map, which predicts from measurements of
its tensors; measurements of other sizes of its family; published losses of other models. Every loss names its source.
Without a source, the loss is unknown.

The unit is the share by which perplexity rises (0.01: one percent), as everywhere in Thriftbit.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from thriftbit.advice.literature import literature_loss
from thriftbit.errors import ThriftbitError
from thriftbit.machine.prediction import Prediction, exact, unknown
from thriftbit.measurement.measurement import Measurement
from thriftbit.sources.model import Model

MEASURED, ELSEWHERE, PREDICTED = "measured here", "measured elsewhere", "predicted"
FAMILY, LITERATURE, UNKNOWN = "measured on its family", "from the literature", "unknown"
LOSSLESS = "by definition"

_EVERYTHING = "all"  # the domain of rows about all texts together
_FLOATS = {"F32": {"F32", "F16", "BF16", "MXFP4"}, "F16": {"F16"}, "BF16": {"BF16", "MXFP4"}}
_FAMILY_NAME = re.compile(r"[a-z]+[-_ ]?\d*(?:\.\d+)?", re.IGNORECASE)
_FLOAT_LOSS = 0.0005  # of 16-bit floats of another kind than the model's own; too small to be measured


@dataclass(frozen=True)
class ExpectedLoss:
    """share: by which perplexity rises. provenance: the source, in the words that all of Thriftbit uses."""

    share: Prediction
    provenance: str

    @property
    def is_of_others(self) -> bool:
        """Whether the loss is that of other models, and so a range rather than a number."""
        return self.provenance in (FAMILY, LITERATURE)


ROUNDED_TO_16_BITS = ExpectedLoss(
    Prediction(0.0, 0.0, _FLOAT_LOSS, "16-bit floats of another kind: the difference is too small to measure"), LOSSLESS
)


class PredictedLoss(Protocol):
    """A map's prediction for a plan: low and high are the interval that contains the loss 19 times in 20."""

    @property
    def low(self) -> float: ...

    @property
    def high(self) -> float: ...

    @property
    def perplexity_rise(self) -> float: ...


@dataclass(frozen=True)
class Evidence:
    """rows: of the store. fingerprint: of the model's weights, "" if they are not here. domain: of the task. from_map:
    gives the loss of a preset by the model's own map, None for a preset that the map lacks. It is None if no map was
    made."""

    rows: Sequence[Measurement]
    fingerprint: str
    domain: str
    from_map: Callable[[str], PredictedLoss | None] | None = None


def evidence_for(
    model: Model,
    rows: Iterable[Measurement],
    domain: str,
    from_map: Callable[[str], PredictedLoss | None] | None = None,
) -> Evidence:
    """Return the evidence about a model. rows: of the store, about any models. domain, from_map: see `Evidence`."""
    try:
        fingerprint = model.fingerprint
    except ThriftbitError:  # only its description is here
        fingerprint = ""
    kept = [row for row in rows if row.what == "perplexity_ratio" and row.value is not None and row.against]
    return Evidence(kept, fingerprint, domain, from_map)


def expected_loss(model: Model, preset: str, evidence: Evidence) -> ExpectedLoss:
    """Return the loss of a file of this preset against the model as it is. preset: by llama.cpp's name."""
    if preset in _FLOATS:
        return _float_loss(model, preset)
    own = [row for row in evidence.rows if row.against and row.against.fingerprint == evidence.fingerprint]
    if row := _newest(own, preset, evidence.domain):
        return ExpectedLoss(_measured(row), MEASURED if row.provenance == MEASURED else ELSEWHERE)
    if evidence.from_map is not None and (predicted := evidence.from_map(preset)):
        return _from_map(predicted)
    family = family_of(model.source)
    related = [row for row in evidence.rows if family and row.against and family_of(row.against.name) == family]
    if row := _newest(related, preset, evidence.domain):
        measured = _measured(row)
        spread = max(abs(measured.value or 0.0), 0.001)
        name = row.against.name if row.against else ""
        return ExpectedLoss(
            Prediction(measured.value, spread / 2, 2 * spread, f"{name}, {_of_what(row)}; sizes differ"), FAMILY
        )
    return _published(preset, model)


def loss_of_file(model: Model, level: str, evidence: Evidence) -> ExpectedLoss:
    """Return the loss of a file that is quantized already, against its original. level: what the file says it is."""
    own = [row for row in evidence.rows if row.subject.fingerprint == evidence.fingerprint]
    if row := _newest(own, level, evidence.domain):
        return ExpectedLoss(_measured(row), MEASURED if row.provenance == MEASURED else ELSEWHERE)
    return _published(level, model)


def _published(level: str, model: Model) -> ExpectedLoss:
    experts = model.metadata.get(f"{model.architecture}.expert_count", 0)
    found = literature_loss(level, model.parameters, mixture=bool(np.any(experts)))
    return ExpectedLoss(found, LITERATURE) if found else ExpectedLoss(unknown("nothing is published about it"), UNKNOWN)


def with_cache(loss: ExpectedLoss, cache: Prediction) -> ExpectedLoss:
    """cache: by what share perplexity rises through the KV cache. Return what weights and cache lose together: their
    errors are independent, so the rises multiply."""
    share = loss.share
    if not cache.value or share.value is None:
        return loss
    value, low, high = (
        (1 + (own or 0.0)) * (1 + (more or 0.0)) - 1
        for own, more in ((share.value, cache.value), (share.low, cache.low), (share.high, cache.high))
    )
    provenance = LITERATURE if loss.provenance == LOSSLESS else loss.provenance
    reason = f"{share.reason}; and for its cache {cache.reason}"
    return ExpectedLoss(Prediction(value, low, high, reason), provenance)


def family_of(name: str) -> str:
    """Return the family in a model's name: "smollm2" for "SmolLM2-135M-Instruct", "" if there is none."""
    match = _FAMILY_NAME.match(name.rstrip("/").rpartition("/")[2])
    return re.sub(r"[-_ ]", "", match[0].lower()) if match and any(c.isdigit() for c in match[0]) else ""


def _float_loss(model: Model, preset: str) -> ExpectedLoss:
    stored = {tensor.source_dtype for tensor in model.tensors if len(tensor.shape) > 1}
    if stored <= _FLOATS[preset]:
        return ExpectedLoss(exact(0.0, "it holds every bit of the model's own weights"), LOSSLESS)
    return ROUNDED_TO_16_BITS


def _from_map(predicted: PredictedLoss) -> ExpectedLoss:
    """Return the rise of perplexity that a map predicts: at most exp(KL divergence) - 1. A map cannot tell how much
    less."""
    share = predicted.perplexity_rise
    low, high = math.expm1(predicted.low) / 2, math.expm1(predicted.high)
    return ExpectedLoss(Prediction(share, min(low, share), max(high, share), "the model's own map"), PREDICTED)


def _newest(rows: Sequence[Measurement], preset: str, domain: str) -> Measurement | None:
    """Return the newest row of this preset: about the task's domain if there is one, else about all domains."""
    about = [row for row in rows if row.subject.level == preset]
    for wanted in (domain, _EVERYTHING):
        of_domain = [row for row in about if row.settings.get("domain") == wanted]
        if of_domain:
            return max(of_domain, key=lambda row: row.time)
    return max(about, key=lambda row: row.time, default=None)


def _measured(row: Measurement) -> Prediction:
    value = (row.value or 1.0) - 1
    low = value if row.low is None else row.low - 1
    high = value if row.high is None else row.high - 1
    return Prediction(value, low, high, f"measured on {_of_what(row)}")


def _of_what(row: Measurement) -> str:
    domain = row.settings.get("domain")
    return "all texts" if domain == _EVERYTHING else str(domain or "text")
