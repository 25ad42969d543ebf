"""The report as one HTML file that needs nothing else: no network, no fonts, no scripts from elsewhere.

Style and script stand in the file, and its policy allows only these two, by their hashes. So nothing in a row can ever
run or load anything. All strings pass through the template's escaping and through `harmless`. The script only adds
comfort: without it, everything is there to read.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from thriftbit.containers.atomic_file import AtomicFile
from thriftbit.measurement.measurement import Measurement
from thriftbit.measurement.quantities import QUANTITIES
from thriftbit.report import answers, frontier, panels, provenance, questions, verdict, wording
from thriftbit.report.numbers import describe, describe_interval, percent, significant, times
from thriftbit.report.summary import Summary, summarize
from thriftbit.sizes import describe_bytes
from thriftbit.strangers import harmless, shortened

TEMPLATES = Path(__file__).with_name("templates")
GENERATOR = "Thriftbit report"  # by which a page of ours is known
_HEAD_BYTES = 4096
LONGEST_LABEL = 28  # characters of a file's label in tables


def write_report(rows: Sequence[Measurement], path: str | Path, force: bool = False) -> Path:
    """Return the path, where the page then is, whole. rows: as for `summarize`. force: replace a file that is there.
    Raises ThriftbitError if there are no rows, or the file exists or cannot be written."""
    page = render_page(rows).encode()
    with AtomicFile(path, len(page), force=force, private=True) as file:
        file.write(page)
    return Path(path)


def is_report(path: str | Path) -> bool:
    """Return whether there is a page at `path` that `write_report` wrote."""
    try:
        with Path(path).open("rb") as file:
            return f'content="{GENERATOR}"'.encode() in file.read(_HEAD_BYTES)
    except OSError:
        return False


def render_page(rows: Sequence[Measurement]) -> str:
    """Return the HTML; raises ThriftbitError if there are no rows."""
    summary = summarize(rows)
    chosen = verdict.recommended(summary)
    prompts = answers.prompts(summary)
    style = _source("page.css") + answers.choice_style(prompts)
    script = _source("page.js")
    return (
        _environment()
        .get_template("page.html.j2")
        .render(
            style=style,
            style_hash=_hash(style),
            script=script,
            script_hash=_hash(script),
            generator=GENERATOR,
            summary=summary,
            original=summary.original,
            chosen=chosen,
            chosen_number=summary.files.index(chosen) if chosen else -1,
            headline=verdict.headline(summary, chosen) if chosen else "",
            explanation=verdict.explanation(summary, chosen) if chosen else "",
            known=_known(summary),
            long_labels=panels.has_long_labels(summary),
            loss_scale=verdict.LOSS_SCALE,
            frontiers=frontier.draw_frontiers(summary),
            cost_panels=panels.cost_panels(summary),
            domain_panels=panels.domain_panels(summary),
            task_panels=panels.task_panels(summary),
            questions={task: questions.flipped_questions(summary, task, chosen) for task in summary.tasks},
            most_questions=questions.MOST_QUESTIONS,
            prompts=prompts,
            answering=answers.files_with_answers(prompts),
            workload=wording.describe_workload(summary.workload),
            machines=[wording.describe_machine(machine) for machine in summary.machines],
            machine_letters=provenance.machine_letters(summary),
            versions=provenance.versions(summary.rows),
            commands=provenance.commands(summary),
            remarks=wording.remarks(summary),
            not_measurable=wording.not_measurable(summary),
            quantities={row.what: QUANTITIES[row.what] for row in summary.rows},
            measured_on=summary.rows[-1].time[:10],
        )
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_seen,
    )
    environment.filters |= {
        "bytes": describe_bytes,
        "percent": percent,
        "times": times,
        "significant": significant,
        "value": describe,
        "interval": describe_interval,
        "short": lambda text: shortened(text, LONGEST_LABEL),
        "verdict": verdict.judge,
        "hundred": verdict.in_a_hundred,
    }
    return environment


def _known(summary: Summary) -> dict[str, bool]:
    """Return which columns of the table have anything to tell."""
    files = summary.subjects
    return {
        "memory": any(file.cost("peak_memory") for file in files),
        "speed": any(file.cost("decode_rate") for file in files),
        "loss": any(summary.loss(file) for file in files),
        "agreement": any(file.quality("same_top_token", summary.overall) for file in files),
    }


def _seen(value: Any) -> Any:
    """What a template prints: strings without anything that cannot be seen"""
    return harmless(value, keep="\n\t") if isinstance(value, str) and not hasattr(value, "__html__") else value


def _source(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """Return the name that a Content-Security-Policy gives to a style or script."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
