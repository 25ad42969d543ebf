"""What Ollama has to be told about how to talk with a model: template, stop tokens, sampling; all from its file.

The problem: Ollama's templates are written in Go's language, a model's in Jinja. `ollama create` compares the text of
the model's template with forty that it has seen, and takes the nearest.

The choice: the template is run on conversations of marked texts (`rendering.py`). What stands between the marks is
what the template puts there. Nearly every template for text is such a row of fixed pieces (ChatML, Llama, Gemma, Phi,
Zephyr, Vicuna and others). Two more conversations, longer and with other texts, prove it. Some templates are no row
of pieces, such as one of Mistral's that puts the system text before the last question; then there is no template for
Ollama.

Ollama gives its template `.Messages`, each with `.Role` and `.Content`, neighbours of one role joined, and takes what
comes out as the model's prompt. Where the last message is the assistant's, the model goes on with it. A system text
in the middle of a conversation goes before the next question. Ollama lets llama.cpp put the token that begins a text,
so that token is not in the template. Language: https://pkg.go.dev/text/template. Ollama's side: its docs/template.mdx
and template/template.go.

Left out: tools, images and reasoning, which are programs and not pieces.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from thriftbit.runtime.export.exported_file import ExportedFile
from thriftbit.runtime.export.rendering import Conversation, render

_CONTROL = 3  # tokenizer.ggml.token_type of tokens that are no text
_MOST_STOPS, _LONGEST_STOP = 12, 80
_ENDS = ("eos", "eot", "eom")
_LLAMA_3 = ("llama", "falcon3", "pixtral")  # byte-level vocabularies that llama.cpp begins with a token, untold
_SAMPLING = {
    "temperature": "temp",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "repeat_penalty": "penalty_repeat",
    "repeat_last_n": "penalty_last_n",
}
NO_TEMPLATE = "The file has no chat template: the model continues what you write, and does not answer it."


@dataclass(frozen=True)
class ChatFormat:
    """template: in Go's language; None where the file's cannot be expressed in it. parameters: in Ollama's names.
    note: a sentence, where there is something to know."""

    template: str | None
    parameters: dict[str, Any]
    note: str | None


def chat_format(exported: ExportedFile) -> ChatFormat:
    jinja = exported.text("tokenizer.chat_template")
    sampling = _sampling(exported)
    ends = list(_ends(exported))
    if not jinja:
        return ChatFormat(CONTINUE, sampling | _stops(ends), NO_TEMPLATE)
    turns = find_turns(jinja, _token(exported, "bos") or "", _token(exported, "eos") or "")
    if turns is None:
        note = (
            "Its chat template cannot be written in Ollama's language. Ollama 0.30 and later run it as it is; earlier "
            "ones would send your words bare, so update Ollama"
        )
        return ChatFormat(None, sampling | _stops(ends), note + ".")
    stops = [*ends, *_marks(exported, turns)]
    return ChatFormat(go_template(_without_beginning(exported, turns)), sampling | _stops(stops), None)


def _without_beginning(exported: ExportedFile, turns: Turns) -> Turns:
    """Return the pieces without the token of the beginning, where llama.cpp puts it itself."""
    beginning = _token(exported, "bos")
    if not beginning or not _adds_beginning(exported):
        return turns
    first, before = turns.first.removeprefix(beginning), turns.before_system.removeprefix(beginning)
    return replace(turns, first=first, before_system=before)


def _adds_beginning(exported: ExportedFile) -> bool:
    told = exported.headers[0].metadata.get("tokenizer.ggml.add_bos_token")
    if isinstance(told, bool | np.bool_):
        return bool(told)
    byte_level = exported.text("tokenizer.ggml.model") == "gpt2"
    return not byte_level or (exported.text("tokenizer.ggml.pre") or "").startswith(_LLAMA_3)


def _token(exported: ExportedFile, name: str) -> str | None:
    """Return the text of the token "bos", "eos", …."""
    number = exported.number(f"tokenizer.ggml.{name}_token_id")
    tokens = exported.headers[0].metadata.get("tokenizer.ggml.tokens")
    if number is None or not isinstance(tokens, list) or not 0 <= number < len(tokens):
        return None
    text = tokens[int(number)]
    return text if isinstance(text, str) and text.isprintable() else None


def _ends(exported: ExportedFile) -> Iterator[str]:
    yield from (text for name in _ENDS if (text := _token(exported, name)))


def _marks(exported: ExportedFile, turns: Turns) -> list[str]:
    """Return the tokens that end an answer and begin a question: a model that writes one of them speaks for the user.
    Where they are no tokens but words ("USER:"), these."""
    tokens = exported.headers[0].metadata.get("tokenizer.ggml.tokens")
    types = exported.headers[0].metadata.get("tokenizer.ggml.token_type")
    found: list[tuple[int, str]] = []
    if isinstance(tokens, list) and isinstance(types, np.ndarray) and len(types) == len(tokens):
        control = (tokens[int(index)] for index in np.flatnonzero(types == _CONTROL))
        found = [(turns.to_question.find(text), text) for text in control if text and text in turns.to_question]
    if found:
        return [text for _, text in sorted(found)]
    words = turns.to_question.strip()
    return [words] if len(words) > 2 else []


def _stops(texts: list[str]) -> dict[str, Any]:
    stops = [text for text in dict.fromkeys(texts) if len(text) <= _LONGEST_STOP][:_MOST_STOPS]
    return {"stop": stops} if stops else {}


def _sampling(exported: ExportedFile) -> dict[str, Any]:
    values = {name: exported.number(f"general.sampling.{key}") for name, key in _SAMPLING.items()}
    return {name: value for name, value in values.items() if value is not None}


# ---------------------------------------------------------------- the pieces of a template

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
        """Return what the model is given for questions and answers in turn, perhaps after a system's text."""
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
    """Return the pieces; None if the template is broken, or not a row of
    pieces. bos, eos: the texts of those tokens."""
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
    """Return what stands before, between and after the marks; None unless each is there once, in this order."""
    if text is None or any(text.count(mark) != 1 for mark in marks):
        return None
    pieces = []
    for mark in marks:
        before, found, text = text.partition(mark)
        if not found:
            return None
        pieces.append(before)
    return [*pieces, text]


# ---------------------------------------------------------------- the template in Go's language

CONTINUE = "{{ .Prompt }}"  # for models without a chat template: text in, and its continuation out


def go_template(turns: Turns) -> str:
    """Return the template."""
    # A message of any other role (a tool's) is taken for a question, as leaving it out would hide it from the model.
    later_system = "{{ if $system }}{{ $system }}\n\n{{ end }}"
    return (
        '{{ $last := "" }}{{ $system := "" }}{{ range .Messages }}'
        '{{ if eq .Role "system" }}{{ $system = .Content }}'
        f'{{{{ else if eq .Role "assistant" }}}}{_literal(turns.to_answer)}{{{{ .Content }}}}{{{{ $last = .Role }}}}'
        "{{ else }}"
        f'{{{{ if eq $last "" }}}}{{{{ if $system }}}}{_literal(turns.before_system)}{{{{ $system }}}}'
        f"{_literal(turns.after_system)}{{{{ else }}}}{_literal(turns.first)}{{{{ end }}}}"
        f"{{{{ else }}}}{_literal(turns.to_question)}{later_system}{{{{ end }}}}"
        '{{ .Content }}{{ $system = "" }}{{ $last = .Role }}{{ end }}{{ end }}'
        f'{{{{ if ne $last "assistant" }}}}{_literal(turns.to_end)}{{{{ end }}}}'
    )


def _literal(text: str) -> str:
    """Return the text where Go's language stands for itself."""
    return text.replace("{", '{{ "{" }}')
