"""What `thriftbit quantize` prints: the plan of a dry run, and the result."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thriftbit.cli.printing import print_json, say, show, table
from thriftbit.errors import enumeration
from thriftbit.sizes import counted, describe_bytes, describe_count
from thriftbit.strangers import quoted

if TYPE_CHECKING:
    from thriftbit import ImportanceMatrix, Model, Plan, QuantizeResult
    from thriftbit.quantization.allocation import Allocation

_SMALLEST_GAP = 0.0005  # below which nobody would see the difference


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
    from thriftbit.quantization.gguf_file import file_layout
    from thriftbit.quantization.importance_needed import refusal, tensors_that_need_importance
    from thriftbit.quantization.plan_summary import summarize_roles

    size_bytes = file_layout(model, plan, importance, effort=effort).file_size_bytes
    lacks_importance = not importance and effort == "plain" and bool(tensors_that_need_importance(model, plan))
    free_bytes = free_bytes_for(output)
    roles = summarize_roles(model, plan)
    if as_json:
        document = _sizes_document(model, plan, output, size_bytes)
        document |= {"written": False, "free_bytes": free_bytes, "needs_importance": lacks_importance}
        document["roles"] = [
            {"role": role, "parameters": s.parameters, "size_bytes": s.size_bytes, "formats": dict(s.formats)}
            for role, s in roles.items()
        ]
        print_json(document | (found.prediction_document() if found else {}) | {"plan": json.loads(plan.to_json())})
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
        say(_describe_prediction(found))
    say(f"  {size_bytes:,} bytes exactly; its disk has {describe_bytes(free_bytes)} free")
    if lacks_importance:
        say(f"\n{refusal(plan.preset, plan.most_common_format(model))}")


def print_result(
    model: Model, plan: Plan, result: QuantizeResult, as_json: bool, found: Allocation | None = None
) -> None:
    missing, unreached = (result.coverage.missing, result.coverage.unreached) if result.coverage else ((), {})
    if as_json:
        document = _sizes_document(model, plan, result.path, result.size_bytes)
        document |= {"carried_over": result.carried_over, "check": asdict(result.check) if result.check else None}
        document["logit_check"] = asdict(result.logit_check) if result.logit_check else None
        document |= {"written": True, "seconds": round(result.seconds, 3), "without_importance": list(missing)}
        document |= {
            "vanished": dict(result.vanished),
            "kept_plain": dict(result.kept_plain),
            "experts_hardly_reached": dict(unreached),
        }
        print_json(document | (found.prediction_document() if found else {}))
        return
    say(f"Wrote {result.path} in {result.seconds:.1f} s", style="bold")
    say(_sizes_line(model, plan, result.size_bytes))
    if result.carried_over:
        say(f"  {result.carried_over} matrices hold exactly the weights of the source, which were small already")
    if found:
        say(_describe_prediction(found))
    if missing:
        count = counted(len(missing), "tensor")
        say(f"  The importance data says nothing about {count}: {enumeration(missing)}")
    if unreached:
        most = max(unreached, key=lambda name: unreached[name])
        count = counted(len(unreached), "tensor")
        say(f"  The text hardly reached some experts in {count}, most ({unreached[most]}) in {most}; more text helps")
    if result.kept_plain:
        kept = list(result.kept_plain)
        count = counted(len(kept), "matrix", "matrices")
        say(f"  Calibration did not help {count}, rounded block by block instead: {enumeration(kept)}")
    if result.vanished:
        from thriftbit.quantization.vanished import describe_vanished

        say(f"  {describe_vanished(result.vanished)}", style="bold")
    if result.check:
        say(f"  {result.check.describe()}", style="bold" if result.check.differing else "")
    if result.logit_check:
        say(f"  {result.logit_check.describe()}", style="bold" if result.logit_check.is_wrong else "")
    file = quoted(str(result.path))
    say(f"\nNext:\n  thriftbit chat {file}")
    say(f"  thriftbit export {file} --to ollama    (or lmstudio, llama.cpp; without a copy)")
    say(f"  llama-cli -m {file}")


def _describe_prediction(found: Allocation) -> str:
    """Return what a plan that a budget led to is predicted to lose, and how far from the best it may be."""
    from thriftbit.report.numbers import significant

    loss = found.loss
    value, low, high = (significant(each, 2) for each in (loss.value, loss.low, loss.high))
    best = (
        "the best mix of formats found for this size"
        if found.gap < _SMALLEST_GAP
        else f"at most {100 * found.gap:.2g}% worse than the best mix of formats"
    )
    rise = f"perplexity up by at most {100 * loss.perplexity_rise:.2g}%"
    return f"  predicted to lose {value} nats ({low}–{high}), {rise}; {best}"


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
