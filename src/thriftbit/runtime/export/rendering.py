"""Render a file's chat template on given conversations with Jinja, in a process of its own (`../confined.py`).

Standard input of that process: JSON with `template`, `conversations` (lists of {role, content}), `bos` and `eos`.
Standard output: a list with a text for each conversation, or null where the template would not render it.

The settings are those with which transformers renders chat templates, its clock left out: a template that writes
today's date would put the day of the export into every conversation, and most have a fixed date for when there is no
clock.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from typing import Any

from thriftbit.runtime.confined import limit_this_process, run_confined

_PATIENCE_SECONDS = 20
_MEMORY_BYTES, _PROCESSOR_SECONDS = 1 << 30, 5
_LONGEST = 1 << 20  # characters of a template, or of what comes of it
_GENERATION = re.compile(r"\{%(-?)\s*(?:end)?generation\s*(-?)%\}")  # marks of transformers' own, without effect here

Conversation = Sequence[tuple[str, str]]


def render(template: str, conversations: Sequence[Conversation], bos: str, eos: str) -> list[str | None]:
    """Return for each conversation of (role, text) what the model would be given, up to where it answers; None where
    the template refuses it, is broken, or takes too much time or memory."""
    nothing: list[str | None] = [None] * len(conversations)
    if len(template) > _LONGEST:
        return nothing
    question = {
        "template": template,
        "conversations": [[{"role": role, "content": text} for role, text in each] for each in conversations],
        "bos": bos,
        "eos": eos,
    }
    answer = run_confined(
        "thriftbit.runtime.export.rendering",
        json.dumps(question).encode(),
        patience_seconds=_PATIENCE_SECONDS,
        memory_bytes=_MEMORY_BYTES,
    )
    try:
        texts = json.loads(answer or b"")
    except ValueError:
        return nothing
    return texts if len(texts) == len(conversations) else nothing


def _render_all(question: dict[str, Any]) -> list[str | None]:
    from jinja2.exceptions import TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(message: str) -> None:
        raise TemplateError(message)

    def as_json(value: Any, indent: int | None = None, **options: Any) -> str:
        return json.dumps(value, ensure_ascii=False, indent=indent)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = as_json
    environment.globals["raise_exception"] = refuse
    template = environment.from_string(_GENERATION.sub(r"{#\1 \2#}", question["template"]))
    answers: list[str | None] = []
    for messages in question["conversations"]:
        try:
            text = template.render(
                messages=messages,
                tools=None,
                documents=None,
                add_generation_prompt=True,
                bos_token=question["bos"],
                eos_token=question["eos"],
            )
        except Exception:  # whatever a stranger's program may raise: it does not take this conversation
            text = None
        answers.append(text if text is not None and len(text) <= _LONGEST else None)
    return answers


def main() -> None:
    question = json.loads(sys.stdin.buffer.read())
    limit_this_process(_MEMORY_BYTES, _PROCESSOR_SECONDS)
    try:
        answers = _render_all(question)
    except Exception:  # not Jinja, or more than there is memory for
        answers = [None] * len(question["conversations"])
    sys.stdout.buffer.write(json.dumps(answers).encode())


if __name__ == "__main__":
    main()
