"""Numbers, differences, questions: the parts that both outputs are made of."""

from __future__ import annotations

from dataclasses import replace

import pytest

from thriftbit.measurement.measurement import Measurement, Subject
from thriftbit.report import summarize
from thriftbit.report.differences import compare_texts
from thriftbit.report.numbers import describe, describe_interval
from thriftbit.report.questions import flipped_questions
from thriftbit.report.scales import LogScale, nice_ticks, size_tick
from thriftbit.strangers import harmless, shortened
from unit.report.rows import HOSTILE, example_rows

SUBJECT = Subject("a.gguf", "Q4_0", "0", 1, 4.5)


@pytest.mark.parametrize(
    ("what", "value", "low", "high", "number", "interval"),
    [
        ("kl_divergence_mean", 0.02817, 0.0277, 0.0287, "0.0282", "0.0277–0.0287"),
        ("kl_divergence_mean", 0.31, 0.25, 0.37, "0.31", "0.25–0.37"),
        ("kl_divergence_mean", 0.0, None, None, "0", ""),
        ("kl_divergence_mean", 3e-8, 2e-8, 4e-8, "0", ""),
        ("kl_divergence_mean", 0.02, 0.02, 0.02, "0.0200", ""),
        ("kl_divergence_mean", 0.000012, None, None, "0.000012", ""),
        ("perplexity", 6.4071, 6.36, 6.45, "6.41", "6.36–6.45"),
        ("perplexity_ratio", 1.01424, 1.0138, 1.0147, "1.0142×", "1.0138×–1.0147×"),
        ("same_top_token", 0.9423, 0.94, 0.9446, "94.2%", "94.0–94.5%"),
        ("same_top_token", 0.9982, None, None, "99.82%", ""),
        ("task_accuracy_difference", -0.01, -0.04, 0.02, "−1.0 points", "−4.0 to +2.0 points"),
        ("task_accuracy_difference", -0.0001, None, None, "0.0 points", ""),
        ("peak_memory", 1.34e9, 1.33e9, 1.36e9, "1.34 GB", "1.33–1.36 GB"),
        ("decode_rate", 33.61, 33.0, 34.0, "33.6 tokens/s", "33.0–34.0 tokens/s"),
        ("decode_rate", 12345.6, None, None, "12,346 tokens/s", ""),
        ("first_token_time", 0.0421, None, None, "0.042 s", ""),
        ("load_time", 754.2, None, None, "754 s", ""),
    ],
)
def test_numbers_have_the_digits_they_deserve(
    what: str, value: float, low: float | None, high: float | None, number: str, interval: str
) -> None:
    row = Measurement(what=what, value=value, low=low, high=high, subject=SUBJECT)
    assert (describe(row), describe_interval(row)) == (number, interval)


@pytest.mark.parametrize(
    ("one", "other", "marked"),
    [
        ("The sky is blue.", "The sky was blue.", (["is"], ["was"])),
        ("a b c", "a b c d e", ([], ["d e"])),
        ("a\n\nb", "a b", ([], [])),
        ("", "something new", ([], ["something new"])),
        ("今天天气好", "今天天很好", (["气"], ["很"])),
        ("  x", "y  ", (["x"], ["y"])),
    ],
)
def test_differences_are_marked_word_by_word(one: str, other: str, marked: tuple[list[str], list[str]]) -> None:
    found = compare_texts(one, other)
    both = found.original, found.quantized
    assert tuple([piece.text for piece in pieces if piece.differs] for pieces in both) == marked
    assert tuple("".join(piece.text for piece in pieces) for pieces in both) == (one, other)
    assert not found.identical
    assert compare_texts(other, other).identical


def test_endless_repetition_takes_no_endless_time() -> None:
    found = compare_texts("the light " * 5000, "the light and " * 5000)
    assert "".join(piece.text for piece in found.quantized) == "the light and " * 5000


def test_a_question_shows_what_everybody_chose() -> None:
    summary = summarize(example_rows())
    chosen = next(file for file in summary.files if file.label == "Q4_K_M")
    questions = flipped_questions(summary, "hellaswag", chosen)
    flipped_by = {
        label: [q for q in questions if not any({"original", label} <= set(c.chosen_by) for c in q.choices)]
        for label in ("Q8_0", "Q4_K_M", "Q2_K")
    }
    rows = {file.label: file.tasks["hellaswag"]["answers_flipped"] for file in summary.files}
    assert {label: len(found) for label, found in flipped_by.items()} == {
        label: len(rows[label].detail["questions"]) for label in flipped_by
    }
    assert questions[: len(flipped_by["Q4_K_M"])] == flipped_by["Q4_K_M"]  # the chosen file's come first
    for question in questions:
        voters = [label for choice in question.choices for label in choice.chosen_by]
        assert sorted(voters) == sorted(["original", *(file.label for file in summary.files)])
        assert sum(choice.right for choice in question.choices) == 1


def test_nobody_is_said_to_have_answered_what_it_was_not_asked() -> None:
    rows = [
        replace(row, settings={**row.settings, "questions": 10})
        if row.subject.level == "Q8_0" and row.what == "answers_flipped"
        else row
        for row in example_rows()
    ]
    summary = summarize(rows)
    asked = {q["id"] for q in summary.files[0].tasks["arc_easy"]["answers_flipped"].detail["questions"]}
    answered = {
        question.name
        for question in flipped_questions(summary, "arc_easy", None)
        if any("Q8_0" in choice.chosen_by for choice in question.choices)
    }
    assert summary.files[0].label == "Q8_0" and answered == asked != set()


def test_what_cannot_be_seen_is_shown() -> None:
    assert harmless("a\x1b[31m\u202eb\ud800\x00") == "a\\x1b[31m\\u202eb\\ud800\\x00"
    persian = "می\u200cخواهم"
    assert harmless(persian) == persian and harmless("日本語 naïve 👍\u00a0%") == "日本語 naïve 👍\u00a0%"
    assert harmless("a\nb\tc", keep="\n") == "a\nb\\tc"
    for text in HOSTILE:
        harmless(text).encode()


def test_long_names_lose_their_middle() -> None:
    assert shortened("short", 18) == "short"
    assert shortened("Qwen2.5-1.5B-Instruct-Q4_K_M", 18) == "Qwen2.5-1.…-Q4_K_M"
    assert len(shortened("W" * 300, 18)) == 18
    assert shortened("two\n lines", 18) == "two lines"


def test_axes_cover_what_they_must() -> None:
    scale = LogScale.around([0.0, 0.02, 50.0], 1e-4, 10.0)
    assert scale.place(0.0) == 0.0 and scale.place(1e9) == 1.0
    assert 0 < scale.place(1e-4) < scale.place(0.02) < scale.place(10.0) < 1
    assert next(word for word, _, _ in scale.bands()) == "almost identical"
    assert [begin for _, begin, _ in scale.bands()][1:] == [end for _, _, end in scale.bands()][:-1]
    narrow = LogScale.around([0.03], 1e-4, 10.0)
    assert narrow.high / narrow.low == pytest.approx(10)
    assert nice_ticks(0.6e9, 1.7e9, 6) == pytest.approx([0.6e9, 0.8e9, 1.0e9, 1.2e9, 1.4e9, 1.6e9])
    assert [size_tick(size) for size in (950, 8e8, 1e9, 1.25e9, 2.5e12)] == [
        *("950 bytes", "800 MB", "1 GB", "1.25 GB", "2.5 TB")
    ]
