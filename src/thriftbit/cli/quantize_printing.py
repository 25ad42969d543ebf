"""What `thriftbit quantize` prints: the plan of a dry run, and the result."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thriftbit.cli.printing import print_json, say, show, table
from thriftbit.errors import enumeration
from thriftbit.sizes import describe_bytes, describe_count

if TYPE_CHECKING:
    from thriftbit import ImportanceMatrix, Model, Plan, QuantizeResult
    from thriftbit.quantization.allocation import Allocation

NO_ROLE = "other"
SMALLEST_GAP = 0.0005  # below which nobody would see the difference


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


def print_plan(
    model: Model,
    plan: Plan,
    importance: ImportanceMatrix | None,
    effort: str,
    output: Path,
    as_json: bool,
    found: Allocation | None = None,
) -> None:
    from thriftbit.containers.atomic_file import free_bytes_for
    from thriftbit.quantization.metadata import file_layout

    size_bytes = file_layout(model, plan, importance, effort=effort).file_size_bytes
    free_bytes = free_bytes_for(output)
    roles = summarize_roles(model, plan)
    if as_json:
        document = _sizes_document(model, plan, output, size_bytes)
        document |= {"written": False, "free_bytes": free_bytes}
        document["roles"] = [
            {"role": role, "parameters": s.parameters, "size_bytes": s.size_bytes, "formats": dict(s.formats)}
            for role, s in roles.items()
        ]
        print_json(document | _prediction(found) | {"plan": json.loads(plan.to_json())})
        return
    rows = [
        (
            role,
            ", ".join(f"{name} × {count}" for name, count in summary.formats.most_common()),
            describe_count(summary.parameters),
            f"{8 * summary.size_bytes / summary.parameters:.2f}",
            describe_bytes(summary.size_bytes),
        )
        for role, summary in roles.items()
    ]
    headings = ("role", "formats", ">weights", ">bits each", ">size")
    show(table(headings, rows))
    say(f"\n{output} would be written, from {plan.provenance}:")
    say(_sizes_line(model, plan, size_bytes))
    if found:
        say(describe_prediction(found))
    say(f"  {size_bytes:,} bytes exactly; its disk has {describe_bytes(free_bytes)} free")


def print_result(
    model: Model, plan: Plan, result: QuantizeResult, as_json: bool, found: Allocation | None = None
) -> None:
    missing, unreached = (result.coverage.missing, result.coverage.unreached) if result.coverage else ((), {})
    if as_json:
        document = _sizes_document(model, plan, result.path, result.size_bytes)
        document |= {"written": True, "seconds": round(result.seconds, 3), "without_importance": list(missing)}
        document |= {"kept_plain": dict(result.kept_plain), "experts_hardly_reached": dict(unreached)}
        print_json(document | _prediction(found))
        return
    say(f"Wrote {result.path} in {result.seconds:.1f} s", style="bold")
    say(_sizes_line(model, plan, result.size_bytes))
    if found:
        say(describe_prediction(found))
    if missing:
        say(f"  The importance data says nothing about {len(missing)} tensors: {enumeration(missing)}")
    if unreached:
        most = max(unreached, key=lambda name: unreached[name])
        say(
            f"  The text hardly reached some experts in {len(unreached)} tensors, most of them ({unreached[most]}) in "
            f"{most}; more text helps"
        )
    if result.kept_plain:
        kept = list(result.kept_plain)
        say(f"  Rounded block by block after all, {len(kept)} matrices: {enumeration(kept)}")
    say("\nTo run it:")
    for program, command in _ways_to_run(result.path):
        say(f"  {program:<11}{command}")


def describe_prediction(found: Allocation) -> str:
    """-> what a plan that a budget led to is predicted to lose, and how far from the best it may be"""
    from thriftbit.report.numbers import significant

    loss = found.loss
    value, low, high = (significant(each, 2) for each in (loss.value, loss.low, loss.high))
    best = "no plan is better" if found.gap < SMALLEST_GAP else f"at most {100 * found.gap:.2g} % from the best plan"
    rise = f"perplexity up by {100 * loss.perplexity_rise:.2g} % at most"
    return f"  predicted to lose {value} nats ({low}–{high}), {rise}; {best}"


def _prediction(found: Allocation | None) -> dict[str, Any]:
    if found is None:
        return {}
    loss = found.loss
    return {
        "predicted": {
            "kl_divergence": loss.value,
            "low": loss.low,
            "high": loss.high,
            "perplexity_rise_at_most": loss.perplexity_rise,
            "gap": found.gap,
        }
    }


def _sizes_line(model: Model, plan: Plan, size_bytes: int) -> str:
    share = size_bytes / model.size_bytes
    return (
        f"  {describe_bytes(model.size_bytes)} → {describe_bytes(size_bytes)} ({share:.0%}), "
        f"{plan.bits_per_weight(model):.2f} bits per weight"
    )


def _sizes_document(model: Model, plan: Plan, output: Path, size_bytes: int) -> dict[str, Any]:
    return {
        "model": model.source,
        "architecture": model.architecture,
        "parameters": model.parameters,
        "model_bytes": model.size_bytes,
        "preset": plan.preset,
        "output": str(output),
        "size_bytes": size_bytes,
        "bits_per_weight": round(plan.bits_per_weight(model), 4),
    }


def _ways_to_run(path: Path) -> list[tuple[str, str]]:
    file, name = shlex.quote(str(path)), shlex.quote(path.stem.lower())
    recipe = shlex.quote(f"FROM {path.resolve()}")
    return [
        ("llama.cpp", f"llama-cli -m {file}"),
        ("Ollama", f"echo {recipe} > Modelfile && ollama create {name} -f Modelfile && ollama run {name}"),
        ("LM Studio", f"lms import --copy {file}"),
    ]
