"""Which of many rows a report shows.

A store keeps everything that was ever measured: the same fact again, a quick look before a thorough one, speed at
several lengths of context. Of the same fact the latest row counts. Where settings differ, a table must compare like
with like, so the settings that most files share are chosen, and among those the row that saw the most text.
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
    """-> a setting as text, "" where the row has none"""
    return str(row.settings.get(name, ""))


def count(row: Measurement, name: str) -> float:
    """-> a setting as a number, 0 where it is none"""
    value = row.settings.get(name)
    return value if isinstance(value, int | float) and 0 <= value < MOST else 0


def latest_of_each_fact(rows: Iterable[Measurement]) -> list[Measurement]:
    """rows: oldest first. -> one for each quantity, subject, settings and machine, oldest first; of speed, memory and
    energy one more, where a file was measured beside its original and alone"""
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
    """-> speed, memory and energy on one machine and under one workload: those that most subjects have in common, and
    of equals the latest. Threads may differ: each file is measured with the number that suits it. A file that was
    compared with its original keeps the numbers of that run, so that numbers side by side are of one run."""
    costs = [row for row in rows if row.what in COST_ROWS]
    costs = _most_shared(costs, lambda row: (_key(row.machine), *(setting(row, name) for name in WORKLOAD)))
    comparisons = _comparisons(costs)
    return _one_of_each(sorted(costs, key=lambda row: _run(row) in comparisons))  # the last one wins


def _comparisons(rows: Iterable[Measurement]) -> set[Hashable]:
    """-> the runs in which speed, memory or energy was measured beside an original"""
    return {_run(row) for row in rows if row.against and row.what in COST_ROWS}


def _run(row: Measurement) -> Hashable:
    """-> what the rows of one run of `measure` share, and no other run's"""
    return row.command, row.time


def accuracy_rows(rows: Iterable[Measurement]) -> list[Measurement]:
    """-> at one length of context, as more context makes every model better; for each subject, domain and quantity the
    row that scored the most tokens"""
    accuracy = [row for row in rows if row.what in ACCURACY_ROWS]
    accuracy = _most_shared(accuracy, lambda row: setting(row, "context_tokens"))
    return _one_of_each(sorted(accuracy, key=lambda row: count(row, "tokens")), "domain")


def task_rows(rows: Iterable[Measurement]) -> list[Measurement]:
    """-> for each subject, task and quantity the row with the most questions"""
    tasks = [row for row in rows if row.what in TASK_ROWS]
    return _one_of_each(sorted(tasks, key=lambda row: count(row, "questions")), "task")


def distinct_machines(rows: Iterable[Measurement], costs: Sequence[Measurement]) -> tuple[Mapping[str, Any], ...]:
    """-> the machines that the rows come from, that of the costs first, then the latest"""
    machines = {_key(row.machine): row.machine for row in [*costs[-1:], *reversed(list(rows))] if row.machine}
    return tuple(machines.values())


def distinct_labels(subjects: Sequence[Subject]) -> list[str]:
    """-> what to call each: its level, or its name where two have one level, or its name and fingerprint"""
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
    """-> the rows of the key that the most subjects have; of equals, the one with the latest row"""
    groups: defaultdict[Hashable, list[Measurement]] = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)

    def breadth(group: list[Measurement]) -> tuple[int, str]:
        return (len({identity(row.subject) for row in group if row.value is not None}), group[-1].time)

    return max(groups.values(), key=breadth, default=[])


def _one_of_each(rows: Iterable[Measurement], *settings: str) -> list[Measurement]:
    """-> for each quantity, subject and value of the settings the last row"""
    chosen: dict[Hashable, Measurement] = {}
    for row in rows:
        chosen[row.what, identity(row.subject), *(setting(row, name) for name in settings)] = row
    return list(chosen.values())


def _key(mapping: Mapping[str, Any]) -> str:
    return json.dumps(mapping, sort_keys=True, default=str)
