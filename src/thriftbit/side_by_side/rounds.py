"""One question and its answers, and what of them a page may know.

In a blind round a page may know little: no names, no numbers, and no text before all answers have ended, as a model
may be recognised by its speed. Which answer is whose is not sent to the page before there is a vote. A round that was
stopped, or in which a model failed, gives the same things away; it is shown openly and does not count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from thriftbit.report.answers import remark
from thriftbit.report.differences import Passage, compare_texts
from thriftbit.runtime.engine import STOPPED
from thriftbit.side_by_side.lineup import Contender
from thriftbit.side_by_side.writing import AnswerNumbers, Written
from thriftbit.sizes import describe_bytes
from thriftbit.strangers import harmless

State = Literal["waiting", "writing", "ended"]

ENDED = {
    "stop": "",
    "length": "Cut here, at the length you chose.",
    STOPPED: "Stopped.",
    "failed": "",  # its error is shown
}
LEAST_TOKENS_FOR_SPEED = 5  # of fewer it would say more about the clock


@dataclass
class Answer:
    """model: its number in the line-up, 0 for the original."""

    model: int
    state: State = "waiting"
    text: str = ""
    ended: str = ""
    error: str = ""
    numbers: AnswerNumbers | None = None

    @property
    def is_whole(self) -> bool:
        return self.ended in ("stop", "length")

    def end(self, written: Written) -> None:
        self.state, self.text, self.ended = "ended", written.text, written.ended
        self.error, self.numbers = written.error, written.numbers


@dataclass
class Round:
    """answers: in the order of their columns. picked: in a blind round what was voted for, "" before. revision: grows
    with every change, so that a page gets only what is new to it."""

    number: int
    question: str
    blind: bool
    temperature: float
    seed: int
    answers: list[Answer]
    picked: str = ""
    result: str = ""
    revision: int = field(default=0)

    @property
    def has_ended(self) -> bool:
        return all(answer.state == "ended" for answer in self.answers)

    @property
    def counts(self) -> bool:
        return self.has_ended and all(answer.is_whole for answer in self.answers)

    @property
    def is_secret(self) -> bool:
        return self.blind and not self.picked and (self.counts or not self.has_ended)

    def of_model(self, model: int) -> Answer:
        return next(answer for answer in self.answers if answer.model == model)


def view(it: Round, lineup: Sequence[Contender]) -> dict[str, Any]:
    """Return the round for the page, in plain texts."""
    secret = it.is_secret
    return {
        "number": it.number,
        "question": harmless(it.question, "\n\t"),
        "blind": it.blind,
        "ended": it.has_ended,
        "can_vote": secret and it.has_ended,
        "void": it.blind and it.has_ended and not it.counts,
        "remark": _secret_remark(it) if secret and it.has_ended else "",
        "settings": _settings(it),
        "picked": it.picked,
        "result": it.result,
        "columns": [
            _secret(it, place) if secret else _open(it, answer, lineup) for place, answer in enumerate(it.answers)
        ],
    }


def _secret(it: Round, place: int) -> dict[str, Any]:
    text = _shown(it.answers[place].text) if it.has_ended else ""
    return {
        "title": f"Answer {place + 1}",
        "original": False,
        "state": "ended" if it.has_ended else "writing",
        "pieces": [[text, False]],
        "remark": "",
        "error": "",
        "numbers": [],
    }


def _secret_remark(it: Round) -> str:
    first, *others = (_shown(answer.text) for answer in it.answers)
    return "Both wrote the same, letter by letter." if all(text == first for text in others) else ""


def _open(it: Round, answer: Answer, lineup: Sequence[Contender]) -> dict[str, Any]:
    file = lineup[answer.model]
    pieces, said = _differences(it, answer) if it.has_ended else ((Passage(_shown(answer.text), False),), "")
    return {
        "title": f"Answer {it.answers.index(answer) + 1}: {file.label}" if it.blind else file.label,
        "original": answer.model == 0,
        "state": answer.state,
        "pieces": [[piece.text, piece.differs] for piece in pieces],
        "remark": " ".join(filter(None, (said, ENDED[answer.ended] if answer.ended else ""))),
        "error": harmless(answer.error, keep=""),
        "numbers": _numbers(answer.numbers, file),
    }


def _differences(it: Round, answer: Answer) -> tuple[Sequence[Passage], str]:
    """Return the text in pieces that differ from the original or not, and how they compare, if both are whole.
    The original's own pieces are marked where there is one other only."""
    original, text = it.of_model(0), _shown(answer.text)
    plain = (Passage(text, False),)
    others = [other for other in it.answers if other.model != 0] if answer.model == 0 else [answer]
    if len(others) > 1 or not (original.is_whole and others[0].is_whole):
        return plain, ""
    comparison = compare_texts(_shown(original.text), _shown(others[0].text))
    if answer.model == 0:
        return (plain if comparison.identical else comparison.original), ""
    return (plain if comparison.identical else comparison.quantized), remark(comparison)


def _numbers(numbers: AnswerNumbers | None, file: Contender) -> list[list[str]]:
    """Return rows of a name and a value."""
    rows = []
    if numbers is not None:
        speed = f"{numbers.tokens_per_second:.{1 if numbers.tokens_per_second < 100 else 0}f} tokens/s"
        rows.append(["Speed", speed if numbers.tokens >= LEAST_TOKENS_FOR_SPEED else "too short to tell"])
        if numbers.first_text_seconds is not None:
            rows.append(["First word", f"after {numbers.first_text_seconds:.2f} s"])
        if numbers.memory_bytes is not None:
            rows.append(["Memory", describe_bytes(numbers.memory_bytes)])
    rows.append(["File", describe_bytes(file.subject.size_bytes)])
    rows.append(["Precision", f"{file.subject.bits_per_weight:.2f} bits per weight"])
    return rows


def _settings(it: Round) -> str:
    if not it.temperature:
        return "Temperature 0: always the likeliest token."
    return f"Temperature {it.temperature:g}, chance number {it.seed} for each."


def _shown(text: str) -> str:
    """Return what a model wrote, harmless; without the space around it,
    which belongs to the tokens and not to the answer."""
    return harmless(text.strip().replace("\r\n", "\n"), "\n\t")
