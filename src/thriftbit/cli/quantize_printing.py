"""What `thriftbit quantize` prints: the plan of a dry run, and the result."""

from __future__ import annotations

import json
import shlex
import shutil
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.text import Text

from thriftbit.cli.printing import print_json, printable, show, table
from thriftbit.sizes import describe_bytes

if TYPE_CHECKING:
    from thriftbit import ImportanceMatrix, Model, Plan, QuantizeResult

NO_ROLE = "other"
MISSING_SHOWN = 3


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


def print_plan(model: Model, plan: Plan, importance: ImportanceMatrix | None, output: Path, as_json: bool) -> None:
    from thriftbit.quantization.metadata import file_layout

    size_bytes = file_layout(model, plan, importance).file_size_bytes
    free_bytes = shutil.disk_usage(output.resolve().parent).free
    roles = summarize_roles(model, plan)
    if as_json:
        document = _sizes_document(model, plan, output, size_bytes)
        document |= {"written": False, "free_bytes": free_bytes}
        document["roles"] = [
            {"role": role, "parameters": s.parameters, "size_bytes": s.size_bytes, "formats": dict(s.formats)}
            for role, s in roles.items()
        ]
        print_json(document | {"plan": json.loads(plan.to_json())})
        return
    rows = [
        (
            role,
            ", ".join(f"{name} × {count}" for name, count in summary.formats.most_common()),
            f"{summary.parameters / 1e6:,.1f}",
            f"{8 * summary.size_bytes / summary.parameters:.2f}",
            describe_bytes(summary.size_bytes),
        )
        for role, summary in roles.items()
    ]
    show(
        table({"role": "left", "formats": "left", "M weights": "right", "bits each": "right", "size": "right"}, rows),
        Text(f"\n{printable(str(output))} would be written, from {plan.provenance}:"),
        _sizes_line(model, plan, size_bytes, f"{size_bytes:,} bytes exactly; its disk has {describe_bytes(free_bytes)} free"),
    )


def print_result(model: Model, plan: Plan, result: QuantizeResult, as_json: bool) -> None:
    missing = result.coverage.missing if result.coverage else ()
    if as_json:
        document = _sizes_document(model, plan, result.path, result.size_bytes)
        document |= {"written": True, "seconds": round(result.seconds, 3), "without_importance": list(missing)}
        print_json(document)
        return
    show(
        Text(f"Wrote {printable(str(result.path))}", style="bold"),
        _sizes_line(model, plan, result.size_bytes, f"{result.seconds:.1f} s"),
    )
    if missing:
        names = ", ".join(missing[:MISSING_SHOWN]) + (", …" if len(missing) > MISSING_SHOWN else "")
        show(Text(f"  The importance data says nothing about {len(missing)} tensors: {printable(names)}"))
    show(Text("\nTo run it:"))
    for program, command in _ways_to_run(result.path):
        show(Text(f"  {program:<11}{command}", no_wrap=True, overflow="ignore"))


def _sizes_line(model: Model, plan: Plan, size_bytes: int, more: str) -> Text:
    share = size_bytes / model.size_bytes
    return Text(
        f"  {describe_bytes(model.size_bytes)} → {describe_bytes(size_bytes)} ({share:.0%}), "
        f"{plan.bits_per_weight(model):.2f} bits per weight, {more}"
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
    file, name = shlex.quote(printable(str(path))), shlex.quote(printable(path.stem.lower()))
    absolute = shlex.quote(f"FROM {printable(str(path.resolve()))}")
    return [
        ("llama.cpp", f"llama-cli -m {file}"),
        ("Ollama", f"echo {absolute} > Modelfile && ollama create {name} -f Modelfile && ollama run {name}"),
        ("LM Studio", f"lms import --copy {file}"),
    ]
