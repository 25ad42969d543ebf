"""What a quantized KV cache loses: published measurements, of the model's own architecture where there are some.

Most models lose little, and some lose much: Gemma 4 more with a cache in 8 bits than others with weights in 3. So its
numbers count for itself alone. The tables and their sources are in `cache_losses.json`.

Most tables were made with 512 to 4,096 tokens. A longer text is looked back at through more rounded numbers, so the
pessimistic end grows with it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

from thriftbit.formats import format_named
from thriftbit.machine.prediction import Prediction, exact

_LEAST_LOSS = 0.0002  # what is published as less, or as a gain, is noise
_MEASURED_TOKENS = 4096  # of context, in most tables
_MOST_GROWTH = 4.0  # of the pessimistic end, for a longer context: a judgement
_OF_ONE = 2.0  # times smaller or larger: the range around a single number
# Keys decide which tokens are looked at, values only what is taken from them. So keys are the more sensitive half:
# 8-bit keys with 4-bit values lost 0.9% where the reverse lost 6.1% (KVSplit, github.com/dipampaul17/KVSplit).
_OF_KEYS = 0.8
_EIGHT, _FOUR = "Q8_0", "Q4_0"


def cache_loss(architecture: str, key_type: str, value_type: str, context_tokens: int) -> Prediction:
    """architecture: as GGUF names it. Return by what share perplexity rises, from the F16 cache to these types."""
    parts = [(share, _loss(architecture, name)) for name, share in ((key_type, _OF_KEYS), (value_type, 1 - _OF_KEYS))]
    if all(loss.value == 0 for _, loss in parts):
        return exact(0.0, "the cache holds 16-bit numbers")
    growth = min(_MOST_GROWTH, max(1.0, math.sqrt(context_tokens / _MEASURED_TOKENS)))
    value, low, high = (
        sum(share * (getattr(loss, end) or 0.0) for share, loss in parts) for end in ("value", "low", "high")
    )
    reason = next(loss.reason for _, loss in parts if loss.value)
    return Prediction(value, low, growth * high, reason)


def _loss(architecture: str, type_name: str) -> Prediction:
    """Return that of one type; between those that were published by bits, as losses grow by a factor for each."""
    bits = _bits(type_name)
    if bits >= 16:
        return exact(0.0, "16-bit numbers")
    eight, four = (_published(architecture, name) for name in (_EIGHT, _FOUR))
    upward = min(1.0, max(0.0, (_bits(_EIGHT) - bits) / (_bits(_EIGHT) - _bits(_FOUR))))
    value, low, high = (
        math.exp((1 - upward) * math.log(a) + upward * math.log(b))
        for a, b in ((getattr(eight, end), getattr(four, end)) for end in ("value", "low", "high"))
    )
    return Prediction(value, low, high, (four if upward else eight).reason)


@cache
def _published(architecture: str, type_name: str) -> Prediction:
    rows = [row for row in _rows() if row["type"] == type_name]
    own = [row for row in rows if row["architecture"] == architecture]
    used = own or [row for row in rows if not row.get("alone")]
    shares = [_share(row) for row in used]
    models = ", ".join(dict.fromkeys(row["model"] for row in used))
    apart = 1.0 if len(set(shares)) > 1 else _OF_ONE
    reason = f"published measurements of {models}"
    return Prediction(median(shares), min(shares) / apart, max(shares) * apart, reason)


def _share(row: Mapping[str, Any]) -> float:
    share = math.expm1(row["divergence"]) if "divergence" in row else row["ratio"] - 1
    return max(_LEAST_LOSS, share)


@cache
def _rows() -> tuple[Mapping[str, Any], ...]:
    document = json.loads(Path(__file__).with_name("cache_losses.json").read_text(encoding="utf-8"))
    return tuple(document["rows"])


def _bits(type_name: str) -> float:
    format = format_named(type_name)
    return 8 * format.row_bytes(format.block_size) / format.block_size
