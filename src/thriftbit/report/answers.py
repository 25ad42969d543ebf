"""The same prompt answered by the original and by each file, with the differences marked.

One file at a time stands beside the original, because five columns of prose are unreadable. Radio buttons choose the
file, with one rule of style for each, so this works without a script.
"""

from __future__ import annotations

from dataclasses import dataclass

from thriftbit.measurement.measurement import Measurement
from thriftbit.report.differences import Comparison, compare_texts
from thriftbit.report.summary import Summary


@dataclass(frozen=True)
class Pair:
    """file: its number in the summary. remark: how the texts compare, in words."""

    file: int
    label: str
    comparison: Comparison
    remark: str


@dataclass(frozen=True)
class AnsweredPrompt:
    text: str
    pairs: tuple[Pair, ...]


def prompts(summary: Summary) -> list[AnsweredPrompt]:
    """Return the prompts that the original and at least one file answered."""
    found = []
    for name in summary.prompts:
        original = summary.original and summary.original.answers.get(name)
        if not original:
            continue
        pairs = tuple(
            _pair(number, file.label, _text(original), _text(answer))
            for number, file in enumerate(summary.files)
            if (answer := file.answers.get(name))
        )
        if pairs:
            found.append(AnsweredPrompt(str(original.detail.get("prompt", name)), pairs))
    return found


def files_with_answers(found: list[AnsweredPrompt]) -> dict[int, str]:
    """Return number in the summary → label."""
    return dict(sorted((pair.file, pair.label) for prompt in found for pair in prompt.pairs))


def choice_style(found: list[AnsweredPrompt]) -> str:
    """Return the rules by which a radio button shows its file's answers."""
    return "".join(
        f"#answers:has(#compare-{number}:checked) .pair[data-file='{number}']{{display:grid}}\n"
        for number in files_with_answers(found)
    )


def _pair(number: int, label: str, original: str, quantized: str) -> Pair:
    comparison = compare_texts(original, quantized)
    return Pair(number, label, comparison, remark(comparison))


def remark(comparison: Comparison) -> str:
    """Return a sentence on how the two texts compare."""
    if comparison.identical:
        return "Both wrote the same, letter by letter."
    if comparison.agreed_words == 0:
        return "They differ from the first word."
    if not any(piece.differs for piece in (*comparison.original, *comparison.quantized)):
        return "They differ in spacing alone."
    words = comparison.agreed_words
    return f"The first {words} words are the same." if words > 1 else "The first word is the same."


def _text(answer: Measurement) -> str:
    """Return what was written, without the space around it: that space belongs to the tokens and not to the answer."""
    text = answer.detail.get("text")
    return text.strip() if isinstance(text, str) else ""
