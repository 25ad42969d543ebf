"""Loss in plain language.

"KL divergence 0.031" says nothing to most people, so every loss comes with a word, and the word always comes with its
number. The scale has four steps, at 0.01, 0.05, 0.2 and 1 nats of mean KL divergence. They lie between what llama.cpp
publishes for Llama 3 8B (tools/perplexity/README.md there) and what people say of those files:

    0.001 Q8_0 · 0.005 Q6_K    | 0.01 |  0.011 Q5_K_M · 0.028–0.043 Q4_K  | 0.05 |  0.07 Q4_0 · 0.08–0.10 Q3_K_M
    | 0.2 |  0.23 Q3_K_S · 0.33–0.45 Q2_K · 0.81 IQ2_XXS  | 1 |  1.4 IQ1_M · 2.2 IQ1_S, at 4 and 9 times the perplexity

The scale is a convention. One number cannot know what a file is for, so the report also shows domains, tasks and
answers. If the interval crosses a step, both words are given, and that it cannot be told yet.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from thriftbit.measurement.measurement import Measurement
from thriftbit.report.choosing import count
from thriftbit.report.numbers import describe, percent, times
from thriftbit.report.summary import FileSummary, Summary
from thriftbit.sizes import describe_bytes
from thriftbit.strangers import shortened

# (word, up to which mean KL divergence in nats)
LOSS_SCALE = (
    ("almost identical", 0.01),
    ("hard to notice", 0.05),
    ("noticeable", 0.2),
    ("clear loss", 1.0),
    ("broken", math.inf),
)
LITTLE = 1  # the last step of the scale that is worth recommending without a but
ONE_SIZE = 1.01  # files that differ by less are of one size
UNDECIDED = "cannot tell yet"
LONGEST_LABEL = 40  # characters, in a sentence
ABOUT_THE_SAME = 0.05  # of a ratio of speeds

_LOST = (
    "and predicts almost exactly as it does",
    "and what it lost is hard to notice",
    "but what it lost is noticeable",
    "but the loss is clear",
    "but it is broken",
)


@dataclass(frozen=True)
class LossVerdict:
    """best, worst: places in LOSS_SCALE, which differ where the interval crosses a step."""

    best: int
    worst: int

    @property
    def words(self) -> str:
        """Return "hard to notice", "hard to notice or noticeable"."""
        if self.best == self.worst:
            return LOSS_SCALE[self.best][0]
        return f"{LOSS_SCALE[self.best][0]} {'or' if self.worst == self.best + 1 else 'to'} {LOSS_SCALE[self.worst][0]}"

    def __str__(self) -> str:
        return self.words if self.best == self.worst else f"{self.words}: {UNDECIDED}"


def judge(loss: Measurement) -> LossVerdict:
    """loss: a mean KL divergence that has a value"""
    assert loss.value is not None
    low, high = (loss.value if end is None else end for end in (loss.low, loss.high))
    return LossVerdict(_step(min(low, loss.value)), _step(max(high, loss.value)))


def recommended(summary: Summary) -> FileSummary | None:
    """Return the smallest file whose loss is certainly hard to notice or less, of several of one size the one that lost
    least; failing that the one that lost least of all, or, where no loss was measured, the smallest."""
    known = [(loss, file) for file in summary.files if (loss := summary.loss(file))]
    little = [(loss, file) for loss, file in known if judge(loss).worst <= LITTLE]
    if little:
        largest_bytes = ONE_SIZE * min(file.subject.size_bytes for _, file in little)
        known = [(loss, file) for loss, file in little if file.subject.size_bytes <= largest_bytes]
    if known:
        return min(known, key=lambda pair: pair[0].value or 0.0)[1]
    return min(summary.files, key=lambda file: file.subject.size_bytes, default=None)


def headline(summary: Summary, file: FileSummary) -> str:
    """Return "Q4_K_M is 67% smaller than the original, writes 1.9× as fast (1.8× to 2.0×), and what it lost is hard to
    notice." A ratio of speeds is told only where its interval excludes 1."""
    label = shortened(file.label, LONGEST_LABEL)
    facts = [fact for fact in (_size(summary, file), _speed(file)) if fact]
    loss = summary.loss(file)
    if loss:
        return f"{label} {', '.join(facts)}, {_lost(judge(loss))}."
    unknown = "; what it lost was not measured" if summary.original else ""
    return f"{label} {' and '.join(facts)}{unknown}."


def explanation(summary: Summary, file: FileSummary) -> str:
    """Return the lines below the headline: how the file compares with the others, and what its loss does to answers."""
    return " ".join(filter(None, (_rank(summary, file), _agreement(summary, file), _changed(file))))


def right_answers(file: FileSummary) -> str:
    """Return "31 of 64", over all tasks; "" if none was measured."""
    rows = [row for task in file.tasks if (row := file.task(task, "task_accuracy"))]
    questions = round(sum(count(row, "questions") for row in rows))
    right = round(sum((row.value or 0) * count(row, "questions") for row in rows))
    return f"{right:,} of {questions:,}" if questions else ""


def in_a_hundred(share: float) -> str:
    """Return "94 times in 100", "997 times in 1,000"."""
    if 0.99 <= share < 0.9995:
        return f"{round(1000 * share)} times in 1,000"
    return "every time" if share >= 0.9995 else f"{round(100 * share)} times in 100"


def _step(divergence: float) -> int:
    return next(place for place, (_, limit) in enumerate(LOSS_SCALE) if divergence < limit)


def _size(summary: Summary, file: FileSummary) -> str:
    if not summary.original:
        return f"takes {describe_bytes(file.subject.size_bytes)}"
    share = file.subject.size_bytes / summary.original.subject.size_bytes
    if round(100 * share) == 100:
        return "is as large as the original"
    if share > 1:
        return f"is {percent(share - 1)} larger than the original"
    return f"is {percent(1 - share)} smaller than the original"


def _speed(file: FileSummary) -> str:
    if ratio := file.cost("decode_rate_ratio"):
        assert ratio.value is not None
        if ratio.low is None or ratio.high is None:
            return ""  # of a single repetition nobody knows how much is chance
        if abs(ratio.value - 1) < ABOUT_THE_SAME or ratio.low <= 1 <= ratio.high:
            return "writes about as fast"
        words = f"{times(ratio.value)} as fast" if ratio.value > 1 else f"at {times(ratio.value)} the speed"
        return f"writes {words} ({times(ratio.low)} to {times(ratio.high)})"
    rate = file.cost("decode_rate")
    return f"writes {describe(rate)}" if rate else ""


def _lost(verdict: LossVerdict) -> str:
    if verdict.best != verdict.worst:
        return f"and it cannot be told yet whether the loss is {verdict.words}"
    return _LOST[verdict.best]


def _rank(summary: Summary, file: FileSummary) -> str:
    loss = summary.loss(file)
    if not loss or len(summary.files) < 2:
        return ""
    if judge(loss).worst <= LITTLE:
        return f"It is the smallest of {len(summary.files)} files whose loss is hard to notice or less."
    return f"It lost the least of {len(summary.files)} files."


def _agreement(summary: Summary, file: FileSummary) -> str:
    same = file.quality("same_top_token", summary.overall)
    return f"It expects the same next word as the original {in_a_hundred(same.value or 0)}." if same else ""


def _changed(file: FileSummary) -> str:
    flipped = [row for task in file.tasks if (row := file.task(task, "answers_flipped"))]
    questions = round(sum(count(row, "questions") for row in flipped))
    if not questions:
        return ""
    changed = round(sum((row.value or 0) * count(row, "questions") for row in flipped))
    if not changed:
        return f"It answers all {questions:,} questions as the original does."
    return f"It answers {changed:,} of {questions:,} questions differently."
