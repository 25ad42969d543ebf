"""What a chat template puts around the turns of a conversation, found by trying it.

Ollama's templates are written in Go's language, a model's in Jinja. `ollama create` compares the text of the model's
with forty that it has seen, and takes the nearest. Here the template is run instead, on conversations of marked texts:
what stands between the marks is what it puts there. Nearly every template for text is such a row of fixed pieces
(chatml, Llama, Gemma, Phi, Zephyr, Vicuna, …); two more conversations, longer and with other texts, prove it. For one
that is not, such as a Mistral that puts the system's text before the last question, None is the answer.

Left out: tools, images and reasoning, which are programs and not pieces.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from thriftbit.runtime.export.rendering import Conversation, render

SYSTEM, USER, ASSISTANT = "system", "user", "assistant"

_S, _U, _A, _V = "zqOnEqz", "zqTwOqz", "zqThReEqz", "zqFoUrqz"
_PROBES: tuple[Conversation, ...] = (
    ((USER, _U),),
    ((USER, _U), (ASSISTANT, _A), (USER, _V)),
    ((SYSTEM, _S), (USER, _U)),
)
_PROOFS: tuple[Conversation, ...] = (
    ((USER, "What is\n\na tree?"), (ASSISTANT, "A plant: 1 + 1."), (USER, "Is it?"), (ASSISTANT, "Yes."), (USER, "Oh")),
    (
        (SYSTEM, "Be kind.\nAlways."),
        (USER, "Hello"),
        (ASSISTANT, "Hi!"),
        (USER, "Why?"),
        (ASSISTANT, "So."),
        (USER, "Hm"),
    ),
)


@dataclass(frozen=True)
class Turns:
    """first: before the first question. before_system and after_system: around the system's text, up to the first
    question, where there is one. to_answer: between a question and its answer. to_question: between an answer and the
    next question. to_end: after the last question. takes_system: whether the template has a place for it; if it refuses
    or drops it, the system's text goes before the first question."""

    first: str
    before_system: str
    after_system: str
    to_answer: str
    to_question: str
    to_end: str
    takes_system: bool = True

    def render(self, conversation: Conversation) -> str:
        """-> what the model is given for questions and answers in turn, perhaps after a system's text"""
        text, last, system = "", "", None
        for role, content in conversation:
            if role == SYSTEM:
                system = content
                continue
            if role == USER:
                if last:
                    text += self.to_question
                else:
                    text += self.first if system is None else f"{self.before_system}{system}{self.after_system}"
            else:
                text += self.to_answer
            text, last = text + content, role
        return text + self.to_end if last == USER else text


def find_turns(template: str, bos: str, eos: str) -> Turns | None:
    """-> the pieces; None if the template is broken, or not a row of pieces. bos, eos: the texts of those tokens."""
    alone, two, with_system, *proofs = render(template, [*_PROBES, *_PROOFS], bos, eos)
    one_piece, two_pieces = _between(alone, (_U,)), _between(two, (_U, _A, _V))
    if one_piece is None or two_pieces is None:
        return None
    first, to_end = one_piece
    again, to_answer, to_question, end_again = two_pieces
    if (again, end_again) != (first, to_end):
        return None
    pieces = _between(with_system, (_S, _U))
    if pieces is None and with_system not in (None, alone):
        return None  # it moves the system's text about
    before, after, _ = pieces or (first, "\n\n", to_end)
    turns = Turns(first, before, after, to_answer, to_question, to_end, takes_system=pieces is not None)
    proven = _PROOFS if turns.takes_system else _PROOFS[:1]
    return turns if all(turns.render(each) == text for each, text in zip(proven, proofs, strict=False)) else None


def _between(text: str | None, marks: Sequence[str]) -> list[str] | None:
    """-> what stands before, between and after the marks; None unless each is there once, in this order"""
    if text is None or any(text.count(mark) != 1 for mark in marks):
        return None
    pieces = []
    for mark in marks:
        before, found, text = text.partition(mark)
        if not found:
            return None
        pieces.append(before)
    return [*pieces, text]
