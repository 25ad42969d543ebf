"""Which of many rows a report shows.

A store keeps everything that was ever measured: the same fact again, a quick look before a thorough one, speed at
several lengths of context. Of several rows about the same fact the latest counts. A table must compare like with like,
so where settings differ, the report takes the settings that most files share, and among those the row that saw the most
text.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any

from thriftbit.measurement.measurement import Measurement, Subject
from thriftbit.measurement.quantities import QUANTITIES
from thriftbit.report.identity import identity

COSTS = (
    "load_time",
    "first_token_time",
    "prefill_rate",
    "decode_rate",
    "peak_memory",
    "peak_gpu_memory",
    "energy_per_token",
)
TASK_ROWS = ("task_accuracy", "task_accuracy_difference", "answers_flipped")
COST_ROWS = (*COSTS, *(f"{what}_ratio" for what in COSTS))
ACCURACY_ROWS = tuple(what for what in QUANTITIES if what not in (*COST_ROWS, *TASK_ROWS, "file_size", "answer"))
MOST = 1e15  # of tokens or questions; rows from elsewhere may claim anything
WORKLOAD = ("device", "prompt_tokens", "generated_tokens", "context_tokens")


def setting(row: Measurement, name: str) -> str:
    """Return a setting as text, "" where the row has none."""
    return str(row.settings.get(name, ""))


def count(row: Measurement, name: str) -> float:
    """Return a setting as a number, 0 where it is none."""
    value = row.settings.get(name)
    return value if isinstance(value, int | float) and 0 <= value < MOST else 0


def latest_of_each_fact(rows: Iterable[Measurement]) -> list[Measurement]:
    """Return one row for each quantity, subject, settings and machine, oldest first.

    rows: oldest first. Where speed, memory or energy was measured both beside the original and alone, both rows are
    kept.
    """
    rows = list(rows)
    comparisons = _comparisons(rows)
    latest: dict[Hashable, Measurement] = {}
    for row in rows:
        beside = identity(row.against) if row.against else _run(row) in comparisons
        fact = (row.what, identity(row.subject), beside, _key(row.settings), _key(row.machine))
        latest.pop(fact, None)
        latest[fact] = row
    return list(latest.values())


def cost_rows(rows: Iterable[Measurement]) -> list[Measurement]:
    """Return speed, memory and energy on one machine and under one workload.

    The machine and workload are those that most subjects share; if several are shared by as many, the latest. Threads
    may differ, because each file is measured with the number that suits it. A file that was compared with its original
    keeps the numbers of that run, so numbers side by side come from one run.
    """
    costs = [row for row in rows if row.what in COST_ROWS]
    costs = _most_shared(costs, lambda row: (_key(row.machine), *(setting(row, name) for name in WORKLOAD)))
    comparisons = _comparisons(costs)
    return _one_of_each(sorted(costs, key=lambda row: _run(row) in comparisons))  # the last one wins


def _comparisons(rows: Iterable[Measurement]) -> set[Hashable]:
    """Return the runs in which speed, memory or energy was measured beside an original."""
    return {_run(row) for row in rows if row.against and row.what in COST_ROWS}


def _run(row: Measurement) -> Hashable:
    """Return what the rows of one run of `measure` share, and no other run's."""
    return row.command, row.time


def accuracy_rows(rows: Iterable[Measurement]) -> list[Measurement]:
    """Return, for each subject, domain and quantity, the row that scored the most tokens. All rows have one length of
    context, because more context makes every model better."""
    accuracy = [row for row in rows if row.what in ACCURACY_ROWS]
    accuracy = _most_shared(accuracy, lambda row: setting(row, "context_tokens"))
    return _one_of_each(sorted(accuracy, key=lambda row: count(row, "tokens")), "domain")


def task_rows(rows: Iterable[Measurement]) -> list[Measurement]:
    """Return, for each subject, task and quantity, the row with the most questions."""
    tasks = [row for row in rows if row.what in TASK_ROWS]
    return _one_of_each(sorted(tasks, key=lambda row: count(row, "questions")), "task")


def distinct_machines(rows: Iterable[Measurement], costs: Sequence[Measurement]) -> tuple[Mapping[str, Any], ...]:
    """Return the machines that the rows come from, that of the costs first, then the latest."""
    machines = {_key(row.machine): row.machine for row in [*costs[-1:], *reversed(list(rows))] if row.machine}
    return tuple(machines.values())


def distinct_labels(subjects: Sequence[Subject]) -> list[str]:
    """Return a label for each subject: its level; if two share it, the name; if two share that too, a fingerprint."""
    names = [subject.name.removesuffix(".gguf") for subject in subjects]
    levels = [subject.level for subject in subjects]
    labels = []
    for subject, name in zip(subjects, names, strict=True):
        if subject.level and levels.count(subject.level) == 1:
            labels.append(subject.level)
        elif name and names.count(name) == 1:
            labels.append(name)
        else:
            labels.append(f"{name or subject.level} {subject.fingerprint[:6]}".strip())
    return labels


def _most_shared(rows: Sequence[Measurement], key: Callable[[Measurement], Hashable]) -> list[Measurement]:
    """Return the rows of the key that most subjects have; if several keys tie, the one with the latest row."""
    groups: defaultdict[Hashable, list[Measurement]] = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)

    def breadth(group: list[Measurement]) -> tuple[int, str]:
        return (len({identity(row.subject) for row in group if row.value is not None}), group[-1].time)

    return max(groups.values(), key=breadth, default=[])


def _one_of_each(rows: Iterable[Measurement], *settings: str) -> list[Measurement]:
    """Return the last row for each quantity, subject and value of the settings."""
    chosen: dict[Hashable, Measurement] = {}
    for row in rows:
        chosen[row.what, identity(row.subject), *(setting(row, name) for name in settings)] = row
    return list(chosen.values())


def _key(mapping: Mapping[str, Any]) -> str:
    return json.dumps(mapping, sort_keys=True, default=str)
