"""Which of many rows the report shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from thriftbit.errors import ThriftbitError
from thriftbit.measurement.measurement import Measurement, Subject
from thriftbit.report import identity, rows_about, summarize
from thriftbit.report.provenance import commands
from thriftbit.report.wording import not_measurable, remarks
from unit.report.rows import DOMAINS, LEVELS, MACHINE, MODEL, ORIGINAL, PROMPTS, TASKS, accuracy_only_rows, example_rows

LATER = "2026-11-23T08:00:00+00:00"


def level_rows(level: str, *what: str) -> list[Measurement]:
    return [row for row in example_rows() if row.subject.level == level and row.what in what]


def value(rows: Sequence[Measurement], level: str, what: str) -> float | None:
    (file,) = [file for file in summarize(rows).subjects if level in (file.label, file.subject.level)]
    return file.costs[what].value


def test_everything_has_its_place() -> None:
    summary = summarize(example_rows())
    assert summary.original is not None and summary.original.subject == ORIGINAL
    assert [file.label for file in summary.files] == [level for level, *_ in LEVELS]
    assert summary.domains == ("all", *DOMAINS) and summary.overall == "all"
    assert summary.tasks == tuple(TASKS) and summary.prompts == tuple(PROMPTS)
    assert summary.workload["prompt_tokens"] == 512 and summary.machines == (MACHINE,)
    for file in summary.subjects:
        assert set(file.accuracy) == {"all", *DOMAINS} and set(file.tasks) == set(TASKS)
        assert set(file.answers) == set(PROMPTS) and file.cost("decode_rate") and file.cost("peak_memory")
        assert file.costs["energy_per_token"].value is None and file.cost("energy_per_token") is None
    assert len(summary.rows) < len(example_rows())  # the original's are repeated for every file


def test_the_latest_row_wins() -> None:
    rows = example_rows()
    old = next(row for row in rows if row.what == "decode_rate" and row.subject.level == "Q6_K")
    new = replace(old, value=99.0, time=LATER)
    assert value([new, *rows], "Q6_K", "decode_rate") == value([*rows, new], "Q6_K", "decode_rate") == 99.0


def test_numbers_side_by_side_are_of_one_run() -> None:
    rows = example_rows()
    alone = [
        replace(row, value=1596.0, against=None, time=LATER, command="thriftbit measure FILE --only speed")
        for row in (*level_rows("Q4_K_M", "decode_rate"), *level_rows("BF16", "decode_rate"))
    ]
    for level in ("Q4_K_M", "BF16"):
        assert value([*rows, *alone], level, "decode_rate") == value(rows, level, "decode_rate") != 1596
    never_compared = [row for row in rows if row.subject.level != "Q4_K_M" or "threads" not in row.settings]
    assert value([*never_compared, *alone], "Q4_K_M", "decode_rate") == 1596


def test_files_are_compared_under_the_workload_that_most_have() -> None:
    rows = example_rows()
    alone = [
        replace(row, value=1.0, settings={**row.settings, "context_tokens": 8192}, time=LATER)
        for row in level_rows("Q6_K", "decode_rate")
    ]
    assert value([*rows, *alone], "Q6_K", "decode_rate") == value(rows, "Q6_K", "decode_rate")
    own_threads = [replace(row, settings={**row.settings, "threads": 4}, time=LATER, value=7.0) for row in alone]
    own_threads = [replace(row, settings={**row.settings, "context_tokens": 2048}) for row in own_threads]
    assert value([*rows, *own_threads], "Q6_K", "decode_rate") == 7.0


def test_costs_come_from_one_machine_and_the_others_are_named() -> None:
    rows = example_rows()
    elsewhere = {**MACHINE, "processor": "Apple M4"}
    moved = [
        replace(row, machine=elsewhere, value=1.0, time=LATER)
        for row in level_rows("Q2_K", "decode_rate", "peak_memory")
    ]
    summary = summarize([*rows, *moved])
    assert value([*rows, *moved], "Q2_K", "decode_rate") != 1.0
    assert summary.machines == (MACHINE, elsewhere)
    assert "2 machines" in remarks(summary)[0] and "Ryzen" in remarks(summary)[0]
    assert {fact.machine for command in commands(summary) for fact in command.facts} == {"A", "B"}


def test_more_text_beats_a_later_glance_and_one_context_length_is_compared() -> None:
    rows = example_rows()
    loss = next(row for row in level_rows("Q6_K", "kl_divergence_mean") if row.settings["domain"] == "all")
    glance = replace(loss, value=9.0, settings={**loss.settings, "tokens": 255, "windows": 1}, time=LATER)
    longer = replace(loss, value=9.0, settings={**loss.settings, "tokens": 10**6, "context_tokens": 4096}, time=LATER)
    summary = summarize([*rows, glance, longer])
    found = summary.loss(next(file for file in summary.files if file.label == "Q6_K"))
    assert found is not None and found.value == loss.value


def test_the_latest_family_is_reported_and_the_rest_is_named() -> None:
    other = Subject("Other-Q4_0.gguf", "Q4_0", "f" * 64, 1000, 4.5)
    against = Subject("Other", "F16", "e" * 64, 3000, 16.0)
    older = [
        replace(row, subject=other, against=against, time="2025-01-01T00:00:00+00:00")
        for row in level_rows("Q6_K", "kl_divergence_mean")
    ]
    summary = summarize([*example_rows(), *older])
    assert summary.original is not None and summary.original.subject == ORIGINAL
    assert summary.left_out == ("Other-Q4_0.gguf",)
    assert "another model: Other-Q4_0.gguf" in remarks(summary)[-1]
    newest = summarize([*example_rows(), *(replace(row, time=LATER) for row in older)])
    assert newest.original is not None and newest.original.subject == against


def test_a_file_that_stands_in_for_the_original_lends_it_its_speed() -> None:
    stand_in = Subject(f"{MODEL}-F16.gguf", "F16", "d" * 64, 3_090_000_000, 16.0)
    rows = [
        replace(
            row,
            subject=stand_in if row.subject == ORIGINAL else row.subject,
            against=stand_in if row.against else None,
        )
        if "threads" in row.settings
        else row
        for row in example_rows()
    ]
    summary = summarize(rows)
    assert summary.original is not None and summary.original.subject == ORIGINAL
    assert summary.original.cost("decode_rate") is not None
    assert stand_in not in [file.subject for file in summary.files]


def test_a_quantized_file_may_be_what_speed_is_compared_with() -> None:
    f16 = Subject(f"{MODEL}-F16.gguf", "F16", "d" * 64, 3_090_000_000, 16.0)
    speed = {"decode_rate", "decode_rate_ratio"}
    rows = [row for row in example_rows() if row.what not in speed]
    for row in level_rows("Q6_K", *speed) + level_rows("BF16", "decode_rate"):
        rows.append(replace(row, subject=f16 if row.subject == ORIGINAL else row.subject, against=row.against and f16))
    rows += [replace(row, subject=f16) for row in level_rows("Q8_0", "kl_divergence_mean")]
    summary = summarize(rows)
    assert summary.files[0].label == "F16"
    assert summary.original is not None and summary.original.subject == ORIGINAL
    assert summary.original.cost("decode_rate") is not None


def test_a_file_that_loses_nothing_is_not_taken_for_the_original() -> None:
    copy = replace(ORIGINAL, name=f"{MODEL}-F16.gguf", level="F16", size_bytes=ORIGINAL.size_bytes + 5_000_000)
    rows = example_rows()
    for row in level_rows("Q8_0", "kl_divergence_mean", "decode_rate", "decode_rate_ratio"):
        rows.append(replace(row, subject=copy, value=0.0 if row.what == "kl_divergence_mean" else row.value))
    summary = summarize(rows)
    assert summary.original is not None and summary.original.subject == ORIGINAL
    assert summary.original.quality("kl_divergence_mean", "all") is None
    assert summary.files[0].subject == copy and summary.loss(summary.files[0]) is not None


def test_levels_name_files_unless_two_share_one() -> None:
    def renamed(row: Measurement, name: str) -> Measurement:
        return replace(row, subject=replace(row.subject, name=name, level="Q4_K_M"))

    rows = [renamed(row, "ours-Q4_K_M.gguf") for row in level_rows("Q4_K_M", "kl_divergence_mean")]
    theirs = [renamed(row, "theirs-Q4_K_M.gguf") for row in level_rows("Q6_K", "kl_divergence_mean")]
    assert {file.label for file in summarize([*rows, *theirs]).files} == {"ours-Q4_K_M", "theirs-Q4_K_M"}
    same_name = [renamed(row, "ours-Q4_K_M.gguf") for row in theirs]
    labels = [file.label for file in summarize([*rows, *same_name]).files]
    assert len({*labels}) == 2 and all(label.startswith("ours-Q4_K_M ") for label in labels)


def test_one_domain_stands_for_the_whole_if_that_is_all_there_is() -> None:
    summary = summarize(accuracy_only_rows())
    assert summary.overall == "contracts of 2025"
    assert "The loss is that on contracts of 2025" in remarks(summary)[0]


def test_files_that_were_compared_with_nothing_stand_together() -> None:
    rows = [replace(row, against=None) for level in ("Q4_K_M", "Q6_K") for row in level_rows(level, "decode_rate")]
    summary = summarize(rows)
    assert summary.original is None and [file.label for file in summary.files] == ["Q6_K", "Q4_K_M"]


def test_what_could_not_be_measured_is_told_with_its_reason() -> None:
    (sentence,) = not_measurable(summarize(example_rows()))
    assert sentence.startswith("Energy could not be measured here: /sys/class/powercap")
    some = [row for row in example_rows() if row.value is not None or row.subject.level == "Q2_K"]
    (sentence,) = not_measurable(summarize(some))
    assert sentence.startswith("Energy of Q2_K could not be measured here: ")


def test_rows_about_a_file_include_its_original_and_about_an_original_all_files() -> None:
    rows = example_rows()
    file = next(row.subject for row in rows if row.subject.level == "Q4_K_M")
    assert {row.subject.level for row in rows_about(rows, [identity(file)])} == {"Q4_K_M", "BF16"}
    assert {row.subject.level for row in rows_about(rows, [identity(ORIGINAL)])} == {"BF16", *(n for n, *_ in LEVELS)}
    assert rows_about(rows, [("0", 1)]) == []


@pytest.mark.parametrize("size", [0, -1, float("nan"), 10**30])
def test_without_rows_that_make_sense_there_is_no_report(size: float) -> None:
    with pytest.raises(ThriftbitError, match="no measurements to report"):
        summarize([])
    rows = level_rows("Q4_K_M", "decode_rate")
    with pytest.raises(ThriftbitError, match="no measurements to report"):
        summarize([replace(row, subject=replace(row.subject, size_bytes=size)) for row in rows])
