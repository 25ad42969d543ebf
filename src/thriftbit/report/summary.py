"""What rows say about one original and the files made from it, arranged for a table or a page.

Nothing is computed here, only chosen: the latest of several rows about one fact; the machine and workload that most
files share; the domain that stands for the whole. Facts remain rows, so every number shown can name its interval, its
command and its machine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from thriftbit.errors import ThriftbitError
from thriftbit.measurement.measurement import Measurement, Subject
from thriftbit.report.choosing import (
    accuracy_rows,
    cost_rows,
    distinct_labels,
    distinct_machines,
    latest_of_each_fact,
    setting,
    task_rows,
)
from thriftbit.report.family import latest_family
from thriftbit.report.identity import Identity, identity

EVERYTHING = "all"  # the domain that holds all text together

Facts = Mapping[str, Measurement]


@dataclass(frozen=True)
class FileSummary:
    """One file or model.

    label: its level, or its name where levels do not tell the files apart. costs: memory, speed and energy under the
    summary's workload. accuracy: by domain. tasks: by task. The innermost mapping of these is from the name of a
    quantity to its row, whose value may be None. answers: by prompt.
    """

    label: str
    subject: Subject
    costs: Facts
    accuracy: Mapping[str, Facts]
    tasks: Mapping[str, Facts]
    answers: Facts

    def cost(self, what: str) -> Measurement | None:
        """Return the row, where it has a value."""
        return measured(self.costs.get(what))

    def task(self, task: str, what: str) -> Measurement | None:
        return measured(self.tasks.get(task, {}).get(what))

    def quality(self, what: str, domain: str) -> Measurement | None:
        return measured(self.accuracy.get(domain, {}).get(what))


@dataclass(frozen=True)
class Summary:
    """original: None where a file was measured alone. files: the largest first. domains: where accuracy was measured,
    "all" first. overall: the domain that stands for a file's loss as a whole, "" if accuracy was not measured.
    workload: settings of the costs that are shown. machines: that of the costs first. rows: all that are current, the
    oldest first. left_out: names of subjects that belong to other models."""

    original: FileSummary | None
    files: tuple[FileSummary, ...]
    domains: tuple[str, ...]
    overall: str
    tasks: tuple[str, ...]
    prompts: tuple[str, ...]
    workload: Mapping[str, Any]
    machines: tuple[Mapping[str, Any], ...]
    rows: tuple[Measurement, ...]
    left_out: tuple[str, ...]

    @property
    def subjects(self) -> tuple[FileSummary, ...]:
        """Return the original, if there is one, and the files."""
        return (self.original, *self.files) if self.original else self.files

    def loss(self, file: FileSummary) -> Measurement | None:
        """Return how far the file's predictions are from the original's."""
        return file.quality("kl_divergence_mean", self.overall)

    def label_of(self, subject: Subject) -> str:
        """Return the label of a subject; what stands in for the original has the original's."""
        labels = {identity(file.subject): file.label for file in self.subjects}
        return labels.get(identity(subject), ORIGINAL)


ORIGINAL = "original"


def measured(row: Measurement | None) -> Measurement | None:
    return row if row is not None and row.value is not None else None


def summarize(rows: Sequence[Measurement]) -> Summary:
    """rows: of any number of models; the one measured last is summarised. Raises ThriftbitError if there are none."""
    family = latest_family(rows)
    if not family.rows:
        raise ThriftbitError("there are no measurements to report; `thriftbit measure FILE --against MODEL` makes some")
    current = latest_of_each_fact(family.rows)
    costs, accuracy, tasks = cost_rows(current), accuracy_rows(current), task_rows(current)

    def summary_of(label: str, subject: Subject, identities: Sequence[Identity]) -> FileSummary:
        def own(rows: Sequence[Measurement]) -> list[Measurement]:
            """Return the rows of these subjects. Those of the first come last, because the last row wins."""
            return [row for one in reversed(identities) for row in rows if identity(row.subject) == one]

        return FileSummary(
            label=label,
            subject=subject,
            costs={row.what: row for row in own(costs)},
            accuracy=_by_setting(own(accuracy), "domain"),
            tasks=_by_setting(own(tasks), "task"),
            answers={setting(row, "prompt_id"): row for row in own(current) if row.what == "answer"},
        )

    subjects = {identity(row.against): row.against for row in current if row.against}
    subjects |= {identity(row.subject): row.subject for row in current}
    made = [subject for one, subject in subjects.items() if one not in family.originals]
    made.sort(key=lambda subject: (-subject.size_bytes, -subject.bits_per_weight, subject.name, subject.fingerprint))
    files = tuple(
        summary_of(label, subject, [identity(subject)])
        for label, subject in zip(distinct_labels(made), made, strict=True)
    )
    # what costs were compared with may be a file that stands in for the original, even one of the files
    measured_as = [identity(row.against) for row in costs if row.against]
    originals = [*dict.fromkeys([*family.originals, *measured_as])]
    domains = sorted(dict.fromkeys(setting(row, "domain") for row in accuracy), key=lambda name: name != EVERYTHING)
    return Summary(
        original=summary_of(ORIGINAL, subjects[originals[0]], originals) if originals else None,
        files=files,
        domains=tuple(domains),
        overall=_overall(domains, files),
        tasks=tuple(dict.fromkeys(setting(row, "task") for row in tasks)),
        prompts=tuple(dict.fromkeys(setting(row, "prompt_id") for row in current if row.what == "answer")),
        workload=dict(costs[-1].settings) if costs else {},
        machines=distinct_machines(current, costs),
        rows=tuple(current),
        left_out=family.strangers,
    )


def _by_setting(rows: Sequence[Measurement], name: str) -> dict[str, dict[str, Measurement]]:
    nested: dict[str, dict[str, Measurement]] = {}
    for row in rows:
        nested.setdefault(setting(row, name), {})[row.what] = row
    return nested


def _overall(domains: Sequence[str], files: Sequence[FileSummary]) -> str:
    """Return "all", or else the domain in which the loss of most files is known."""
    if not domains:
        return ""

    def known(domain: str) -> int:
        return sum(file.quality("kl_divergence_mean", domain) is not None for file in files)

    return max(domains, key=known)
