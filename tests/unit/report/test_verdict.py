"""Loss in plain language."""

from __future__ import annotations

from dataclasses import replace

import pytest

from thriftbit.measurement.measurement import Measurement
from thriftbit.report import summarize
from thriftbit.report.summary import Summary
from thriftbit.report.verdict import explanation, headline, in_a_hundred, judge, recommended
from unit.report.rows import ORIGINAL, accuracy_only_rows, example_rows, lonely_rows

LOSS = next(row for row in example_rows() if row.what == "kl_divergence_mean")


def loss(value: float, low: float | None = None, high: float | None = None) -> Measurement:
    return replace(LOSS, value=value, low=low, high=high)


# Mean KL divergence of Llama 3 8B, as llama.cpp's documentation of llama-perplexity gives it
@pytest.mark.parametrize(
    ("divergence", "word"),
    [
        (0.001355, "almost identical"),  # Q8_0
        (0.005452, "almost identical"),  # Q6_K
        (0.010762, "hard to notice"),  # Q5_K_M
        (0.031273, "hard to notice"),  # Q4_K_M
        (0.101913, "noticeable"),  # Q3_K_M
        (0.445132, "clear loss"),  # Q2_K
        (1.393084, "broken"),  # IQ1_M
        (0.0, "almost identical"),
        (-1e-9, "almost identical"),  # rounding, of a file that equals its original
    ],
)
def test_every_loss_has_a_word(divergence: float, word: str) -> None:
    assert str(judge(loss(divergence))) == word


def test_an_interval_across_a_step_cannot_be_told_yet() -> None:
    assert str(judge(loss(0.048, 0.046, 0.049))) == "hard to notice"
    assert str(judge(loss(0.048, 0.046, 0.051))) == "hard to notice or noticeable: cannot tell yet"
    assert str(judge(loss(0.048, 0.004, 0.21))) == "almost identical to clear loss: cannot tell yet"
    assert str(judge(loss(0.05, 0.05, 0.06))) == "noticeable"


def without(summary_rows: list[Measurement], *levels: str) -> Summary:
    return summarize([row for row in summary_rows if row.subject.level not in levels])


def chosen(summary: Summary) -> str:
    file = recommended(summary)
    assert file is not None
    return file.label


def test_the_smallest_file_with_little_loss_is_recommended() -> None:
    rows = example_rows()
    assert chosen(summarize(rows)) == "Q4_K_M"  # Q3_K_M is smaller and might be as good, which cannot be told
    assert chosen(without(rows, "Q4_K_M")) == "Q6_K"
    assert chosen(without(rows, "Q4_K_M", "Q6_K", "Q8_0")) == "Q3_K_M"  # the least loss of what is left
    assert chosen(summarize(lonely_rows())) == "Q4_K_M"


def sentence(summary: Summary, label: str | None = None) -> str:
    file = next(file for file in summary.files if file.label == (label or chosen(summary)))
    return headline(summary, file)


def test_the_headline_is_a_sentence() -> None:
    summary = summarize(example_rows())
    start = "{} is {} smaller than the original, writes {}, {}."
    assert sentence(summary) == start.format(
        "Q4_K_M", "68%", "2.7× as fast (2.7× to 2.8×)", "and what it lost is hard to notice"
    )
    assert sentence(summary, "Q8_0") == start.format(
        "Q8_0", "47%", "1.8× as fast (1.7× to 1.8×)", "and predicts almost exactly as it does"
    )
    assert sentence(summary, "Q2_K") == start.format(
        "Q2_K", "78%", "3.3× as fast (3.2× to 3.4×)", "but the loss is clear"
    )
    lost = "and it cannot be told yet whether the loss is hard to notice or noticeable"
    assert sentence(summary, "Q3_K_M") == start.format("Q3_K_M", "73%", "2.8× as fast (2.8× to 2.9×)", lost)


def test_the_headline_says_what_is_not_known() -> None:
    rows = example_rows()
    speed_alone = summarize([row for row in rows if row.what in ("decode_rate", "decode_rate_ratio")])
    assert sentence(speed_alone, "Q4_K_M") == (
        "Q4_K_M is 68% smaller than the original and writes 2.7× as fast (2.7× to 2.8×); what it lost was not measured."
    )
    assert sentence(summarize(lonely_rows())) == "Q4_K_M takes 986 MB and writes 33.6 tokens/s."
    sizes = summarize([replace(row, against=None) for row in rows if row.what == "file_size"])
    assert sentence(sizes, "Q2_K") == "Q2_K takes 676 MB."
    assert "writes" not in sentence(summarize(accuracy_only_rows()))


@pytest.mark.parametrize(
    ("ratio", "low", "high", "words"),
    [
        (0.8, 0.78, 0.83, "writes at 0.80× the speed (0.78× to 0.83×)"),
        (0.98, 0.97, 0.99, "writes about as fast,"),
        (1.3, 1.2, 1.4, "writes 1.3× as fast (1.2× to 1.4×)"),
        (1.3, 0.9, 1.9, "writes about as fast,"),
        (0.7, 0.5, 1.0, "writes about as fast,"),
    ],
)
def test_speed_is_told_whichever_way_it_went_and_only_if_that_is_sure(
    ratio: float, low: float, high: float, words: str
) -> None:
    changed = {"value": ratio, "low": low, "high": high}
    rows = [replace(row, **changed) if row.what == "decode_rate_ratio" else row for row in example_rows()]
    assert words in sentence(summarize(rows))


def test_a_ratio_that_was_measured_once_is_no_headline() -> None:
    once = {"low": None, "high": None, "interval": ""}
    rows = [replace(row, **once) if row.what == "decode_rate_ratio" else row for row in example_rows()]
    assert "writes" not in sentence(summarize(rows))


def test_a_file_may_be_larger_than_its_original() -> None:
    sizes = {"Q8_0": 2 * ORIGINAL.size_bytes, "Q6_K": ORIGINAL.size_bytes - 500_000}
    rows = [
        replace(row, subject=replace(row.subject, size_bytes=sizes.get(row.subject.level, ORIGINAL.size_bytes)))
        for row in example_rows()
        if row.subject.level in (*sizes, ORIGINAL.level)
    ]
    assert "Q8_0 is 100% larger than the original" in sentence(summarize(rows), "Q8_0")
    assert "Q6_K is as large as the original" in sentence(summarize(rows), "Q6_K")


def test_the_explanation_speaks_of_words_and_questions() -> None:
    summary = summarize(example_rows())
    file = recommended(summary)
    assert file is not None
    assert explanation(summary, file) == (
        "It is the smallest of 5 files whose loss is hard to notice or less. It expects the same next word as the "
        "original 95 times in 100. It answers 9 of 220 questions differently."
    )
    assert explanation(summarize(lonely_rows()), summarize(lonely_rows()).files[0]) == ""


def test_shares_are_told_in_hundreds() -> None:
    assert in_a_hundred(0.945) == "94 times in 100"
    assert in_a_hundred(0.9971) == "997 times in 1,000"
    assert in_a_hundred(1.0) == "every time"
