"""What Ollama has to be told about how to talk with a model: template, stop tokens, sampling; all from its file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from thriftbit.runtime.export.go_template import CONTINUE, go_template
from thriftbit.runtime.export.subject import Subject
from thriftbit.runtime.export.turns import Turns, find_turns

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


@dataclass(frozen=True)
class ChatFormat:
    """template: in Go's language; None where the file's cannot be expressed in it. parameters: in Ollama's names.
    note: a sentence, where there is something to know."""

    template: str | None
    parameters: dict[str, Any]
    note: str | None


def chat_format(subject: Subject) -> ChatFormat:
    jinja = subject.text("tokenizer.chat_template")
    sampling = _sampling(subject)
    ends = list(_ends(subject))
    if not jinja:
        note = "The file has no chat template: the model continues what you write, and does not answer it."
        return ChatFormat(CONTINUE, sampling | _stops(ends), note)
    turns = find_turns(jinja, _token(subject, "bos") or "", _token(subject, "eos") or "")
    if turns is None:
        note = (
            "Its chat template cannot be written in Ollama's language. Ollama 0.30 and later run it as it is; earlier "
            "ones would send your words bare, so update Ollama"
        )
        return ChatFormat(None, sampling | _stops(ends), note + ".")
    stops = [*ends, *_marks(subject, turns)]
    return ChatFormat(go_template(_without_beginning(subject, turns)), sampling | _stops(stops), None)


def _without_beginning(subject: Subject, turns: Turns) -> Turns:
    """-> the pieces without the token of the beginning, where llama.cpp puts it itself"""
    beginning = _token(subject, "bos")
    if not beginning or not _adds_beginning(subject):
        return turns
    first, before = turns.first.removeprefix(beginning), turns.before_system.removeprefix(beginning)
    return replace(turns, first=first, before_system=before)


def _adds_beginning(subject: Subject) -> bool:
    told = subject.headers[0].metadata.get("tokenizer.ggml.add_bos_token")
    if isinstance(told, bool | np.bool_):
        return bool(told)
    byte_level = subject.text("tokenizer.ggml.model") == "gpt2"
    return not byte_level or (subject.text("tokenizer.ggml.pre") or "").startswith(_LLAMA_3)


def _token(subject: Subject, name: str) -> str | None:
    """-> the text of the token "bos", "eos", …"""
    number = subject.number(f"tokenizer.ggml.{name}_token_id")
    tokens = subject.headers[0].metadata.get("tokenizer.ggml.tokens")
    if number is None or not isinstance(tokens, list) or not 0 <= number < len(tokens):
        return None
    text = tokens[int(number)]
    return text if isinstance(text, str) and text.isprintable() else None


def _ends(subject: Subject) -> Iterator[str]:
    yield from (text for name in _ENDS if (text := _token(subject, name)))


def _marks(subject: Subject, turns: Turns) -> list[str]:
    """-> the tokens that end an answer and begin a question: a model that writes one of them speaks for the user. Where
    they are no tokens but words ("USER:"), these."""
    tokens = subject.headers[0].metadata.get("tokenizer.ggml.tokens")
    types = subject.headers[0].metadata.get("tokenizer.ggml.token_type")
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


def _sampling(subject: Subject) -> dict[str, Any]:
    values = {name: subject.number(f"general.sampling.{key}") for name, key in _SAMPLING.items()}
    return {name: value for name, value in values.items() if value is not None}
