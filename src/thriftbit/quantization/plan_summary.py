"""A plan by what its tensors do in the network: which formats, how much space each role takes, and where rows did not
fit."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from thriftbit.quantization.plan import Plan
from thriftbit.quantization.presets import Preset, fallbacks
from thriftbit.sizes import counted
from thriftbit.sources.model import Model

NO_ROLE = "other"


@dataclass
class RoleSummary:
    """All tensors that do the same thing in the network; formats: how many tensors have each."""

    parameters: int = 0
    size_bytes: int = 0
    formats: Counter[str] = field(default_factory=Counter)


def describe_fallbacks(model: Model, preset: Preset, importance: bool) -> str:
    """Return a sentence about rows that the formats of a preset do not divide; "" where all fit."""
    found = fallbacks(model, preset, importance)
    if not found:
        return ""
    widths = sorted({tensor.width for tensor in model.tensors if tensor.name in found})
    pairs = Counter(found.values()).most_common()
    what = ", ".join(f"{given} in place of {wanted} ({count})" for (wanted, given), count in pairs)
    rows = " and ".join(map(str, widths[:3])) + (" and more" if len(widths) > 3 else "")
    return (
        f"Note: rows of {rows} weights do not divide into the blocks of {preset.name}, so "
        f"{counted(len(found), 'tensor')} of {len(model.tensors)} get another format: {what}."
    )


def summarize_roles(model: Model, plan: Plan) -> dict[str, RoleSummary]:
    """Return the summary of each role, the largest first."""
    summaries: dict[str, RoleSummary] = {}
    for tensor, entry in zip(model.tensors, plan.entries(model), strict=True):
        summary = summaries.setdefault(tensor.role or NO_ROLE, RoleSummary())
        summary.parameters += tensor.parameters
        summary.size_bytes += entry.size_bytes
        summary.formats[entry.format.name] += 1
    return dict(sorted(summaries.items(), key=lambda item: -item[1].size_bytes))
