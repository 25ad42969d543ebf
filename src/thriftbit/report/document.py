"""The report as data for programs: the same facts as the table, not rounded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from thriftbit.measurement.measurement import Measurement
from thriftbit.report.summary import Facts, FileSummary, Summary
from thriftbit.report.verdict import headline, judge, recommended
from thriftbit.report.wording import not_measurable, remarks


def summary_document(summary: Summary) -> dict[str, Any]:
    """Return a JSON document: the headline, the original, and the files, the largest first."""
    choice = recommended(summary)
    return {
        "headline": headline(summary, choice) if choice else None,
        "recommended": choice.label if choice else None,
        "original": _file(summary.original, summary) if summary.original else None,
        "files": [_file(file, summary) for file in summary.files],
        "overall_domain": summary.overall,
        "workload": dict(summary.workload),
        "machines": [dict(machine) for machine in summary.machines],
        "remarks": [*remarks(summary), *not_measurable(summary)],
    }


def _file(file: FileSummary, summary: Summary) -> dict[str, Any]:
    loss = summary.loss(file)
    return {
        "label": file.label,
        **asdict(file.subject),
        "loss": str(judge(loss)) if loss else None,
        "costs": _facts(file.costs),
        "accuracy": {domain: _facts(facts) for domain, facts in file.accuracy.items()},
        "tasks": {task: _facts(facts) for task, facts in file.tasks.items()},
        "answers": {prompt: row.detail.get("text") for prompt, row in file.answers.items()},
    }


def _facts(facts: Facts) -> dict[str, Any]:
    return {what: _fact(row) for what, row in facts.items()}


def _fact(row: Measurement) -> Mapping[str, Any]:
    return {
        "value": row.value,
        "low": row.low,
        "high": row.high,
        "interval": row.interval,
        "unit": row.quantity.unit,
        "note": row.note,
    }
