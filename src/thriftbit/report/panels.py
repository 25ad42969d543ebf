"""Small charts that are tables: one row for each file, with a bar or a dot in a cell between its name and its number.

The numbers can always be read; the drawing only compares them. Text keeps its size in the narrowest window. Places
along an axis are percentages of the cell's width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from thriftbit.measurement.measurement import Measurement
from thriftbit.measurement.quantities import QUANTITIES
from thriftbit.report.choosing import COSTS, count
from thriftbit.report.numbers import describe, describe_interval, significant, times
from thriftbit.report.scales import LogScale
from thriftbit.report.summary import EVERYTHING, FileSummary, Summary
from thriftbit.report.verdict import LOSS_SCALE, judge
from thriftbit.report.wording import describe_domain

LEAST_LOSS, MOST_LOSS = 1e-4, 10.0
TICK_GAP_PERCENT = 16.0  # between the numbers below an axis, which is narrow on a phone
NARROW_TICK_GAP_PERCENT = 30.0  # where long labels leave it less room still
SHORT_LABEL = 9  # characters, which every level has, such as "IQ3_XXS"
EDGE_PERCENT = 3.0  # of a dot's axis, so that dots at its ends are whole
TITLES = {
    "peak_memory": "Memory, at most",
    "peak_gpu_memory": "GPU memory, at most",
    "decode_rate": "Writing",
    "prefill_rate": "Reading the prompt",
    "first_token_time": "Waiting for the first word",
    "load_time": "Loading the file",
    "energy_per_token": "Energy",
}


@dataclass(frozen=True)
class PanelRow:
    """One row. file: its number in the summary, -1 for the original. label, value: text. note: more text, or "".
    place, low, high: in percent of the axis; low and high are None without an interval."""

    file: int
    label: str
    value: str
    interval: str
    note: str
    place: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Panel:
    """title, hint: above it. ticks: (place in percent, text) below it; the text is "" where there is no room."""

    title: str
    hint: str
    marks: tuple[PanelRow, ...]
    ticks: tuple[tuple[float, str], ...] = ()


def has_long_labels(summary: Summary) -> bool:
    return any(len(file.label) > SHORT_LABEL for file in summary.files)


def cost_panels(summary: Summary) -> list[Panel]:
    """Return bars from zero for each cost that was measured of any file, those first that people ask for first."""
    panels = []
    for what in sorted(COSTS, key=list(TITLES).index):
        measured = [
            (number, file, row)
            for number, file in _numbered(summary)
            if (row := file.cost(what)) and (row.value or 0) > 0
        ]
        if not any(number >= 0 for number, _, _ in measured):
            continue
        longest = max(max(row.value or 0, row.high or 0) for _, _, row in measured)
        unit = QUANTITIES[what].unit
        better = f"{QUANTITIES[what].better} is better"
        panels.append(
            Panel(
                title=TITLES[what],
                hint=better if unit == "bytes" else f"{_spelled(unit)}, {better}",
                marks=tuple(_bar(number, file, row, what, longest) for number, file, row in measured),
            )
        )
    return panels


def _bar(number: int, file: FileSummary, row: Measurement, what: str, longest: float) -> PanelRow:
    ratio = file.cost(f"{what}_ratio") if number >= 0 else None
    value = describe(row)
    return PanelRow(
        file=number,
        label=file.label,
        value=value if row.quantity.unit == "bytes" else value.partition(" ")[0],
        interval=describe_interval(row),
        note=times(ratio.value or 0) if ratio else "",
        place=100 * (row.value or 0) / longest,
        low=None if row.low is None else 100 * max(row.low, 0) / longest,
        high=None if row.high is None else 100 * row.high / longest,
    )


def domain_panels(summary: Summary) -> list[Panel]:
    """Return the loss in each domain, all on one logarithmic axis whose ticks are where its words change. Everything
    together is left out where it has parts: it is what the table of files shows."""
    parts = [domain for domain in summary.domains if domain != EVERYTHING] or summary.domains
    rows = {
        domain: [
            (number, file, row)
            for number, file in enumerate(summary.files)
            if (row := file.quality("kl_divergence_mean", domain))
        ]
        for domain in parts
    }
    ends = [end or 0.0 for found in rows.values() for _, _, row in found for end in (row.low, row.value, row.high)]
    if not ends:
        return []
    scale = LogScale.around(ends, LEAST_LOSS, MOST_LOSS)
    gap = NARROW_TICK_GAP_PERCENT if has_long_labels(summary) else TICK_GAP_PERCENT
    ticks: list[tuple[float, str]] = []
    for _, limit in LOSS_SCALE:
        if scale.low < limit < scale.high:
            place = _inset(scale.place(limit))
            crowded = any(text and place - other < gap for other, text in ticks)
            ticks.append((place, "" if crowded else significant(limit, 1)))
    return [
        Panel(describe_domain(domain), _tokens(found), tuple(_dot(*mark, scale) for mark in found), tuple(ticks))
        for domain, found in rows.items()
        if found
    ]


def _dot(number: int, file: FileSummary, row: Measurement, scale: LogScale) -> PanelRow:
    return PanelRow(
        file=number,
        label=file.label,
        value=describe(row),
        interval=describe_interval(row),
        note=str(judge(row)),
        place=_inset(scale.place(row.value or 0)),
        low=None if row.low is None else _inset(scale.place(row.low)),
        high=None if row.high is None else _inset(scale.place(row.high)),
    )


def task_panels(summary: Summary) -> list[tuple[str, Panel]]:
    """Return (task, its panel): the share of right answers, on an axis that spans what the panel needs."""
    panels = []
    for task in summary.tasks:
        found = [
            (number, file, row) for number, file in _numbered(summary) if (row := file.task(task, "task_accuracy"))
        ]
        if not any(number >= 0 for number, _, _ in found):
            continue
        ends = [end for _, _, row in found for end in (row.low, row.value, row.high) if end is not None]
        low, high = min(ends), max(ends)
        marks = tuple(_task_mark(task, *mark, low, (high - low) or 1.0) for mark in found)
        questions = max(count(row, "questions") for _, _, row in found)
        panels.append((task, Panel(task, f"{questions:,.0f} questions" if questions else "", marks)))
    return panels


def _task_mark(task: str, number: int, file: FileSummary, row: Measurement, begin: float, span: float) -> PanelRow:
    return PanelRow(
        file=number,
        label=file.label,
        value=describe(row),
        interval=describe_interval(row),
        note=_task_note(file, task) if number >= 0 else "",
        place=_inset(((row.value or 0) - begin) / span),
        low=None if row.low is None else _inset((row.low - begin) / span),
        high=None if row.high is None else _inset((row.high - begin) / span),
    )


def _task_note(file: FileSummary, task: str) -> str:
    """Return "−1.0 points (−2.8 to +0.8), could be chance; 4 of 100 changed"."""
    facts = []
    difference = file.task(task, "task_accuracy_difference")
    if difference and difference.low is not None and difference.high is not None:
        chance = ", could be chance" if difference.value and difference.low <= 0 <= difference.high else ""
        interval = describe_interval(difference).replace(" points", "")
        facts.append(f"{describe(difference)} ({interval}){chance}")
    elif difference:
        facts.append(describe(difference))
    if flipped := file.task(task, "answers_flipped"):
        questions = count(flipped, "questions")
        facts.append(f"{(flipped.value or 0) * questions:,.0f} of {questions:,.0f} changed")
    return "; ".join(facts)


def _numbered(summary: Summary) -> Iterator[tuple[int, FileSummary]]:
    """Return the original as −1, then the files."""
    if summary.original:
        yield -1, summary.original
    yield from enumerate(summary.files)


def _inset(place: float) -> float:
    return EDGE_PERCENT + place * (100 - 2 * EDGE_PERCENT)


def _tokens(rows: Sequence[tuple[int, FileSummary, Measurement]]) -> str:
    """Return "6,120 tokens", "1,020–6,120 tokens": how much text it rests on."""
    counts = sorted({round(count(row, "tokens")) for _, _, row in rows} - {0})
    if not counts:
        return ""
    return f"{counts[0]:,} tokens" if len(counts) == 1 else f"{counts[0]:,}–{counts[-1]:,} tokens"


def _spelled(unit: str) -> str:
    return {"s": "seconds"}.get(unit, unit)
