"""A plan by what its tensors do in the network: which formats, and how much space each role takes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from thriftbit.quantization.plan import Plan
from thriftbit.sources.model import Model

NO_ROLE = "other"


@dataclass
class RoleSummary:
    """All tensors that do the same thing in the network; formats: how many tensors have each."""

    parameters: int = 0
    size_bytes: int = 0
    formats: Counter[str] = field(default_factory=Counter)


def summarize_roles(model: Model, plan: Plan) -> dict[str, RoleSummary]:
    """-> by role, the largest first"""
    summaries: dict[str, RoleSummary] = {}
    for tensor, entry in zip(model.tensors, plan.entries(model), strict=True):
        summary = summaries.setdefault(tensor.role or NO_ROLE, RoleSummary())
        summary.parameters += tensor.parameters
        summary.size_bytes += entry.size_bytes
        summary.formats[entry.format.name] += 1
    return dict(sorted(summaries.items(), key=lambda item: -item[1].size_bytes))
