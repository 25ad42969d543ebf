"""Run a file's chat template on given conversations, in a process of its own.

A chat template is a program in Jinja that a stranger wrote. Jinja's sandbox keeps it from the system, but lets it loop
for days and build texts of any size; so it runs in a child process that has seconds and, where the system can limit
it, memory. The child runs this file, and loads nothing else of ours. Standard input: JSON with `template`,
`conversations` (lists of {role, content}), `bos` and `eos`; standard output: a list with a text, or null where the
template would not render, for each.

The settings are those with which transformers renders chat templates, its clock left out: a template that writes
today's date would put the day of the export into every conversation, and most have a fixed date for when there is no
clock.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

_PATIENCE_SECONDS = 20
_MEMORY_BYTES, _PROCESSOR_SECONDS = 1 << 30, 5
_LONGEST = 1 << 20  # characters of a template, or of what comes of it
_GENERATION = re.compile(r"\{%(-?)\s*(?:end)?generation\s*(-?)%\}")  # marks of transformers' own, without effect here

Conversation = Sequence[tuple[str, str]]


def render(template: str, conversations: Sequence[Conversation], bos: str, eos: str) -> list[str | None]:
    """-> for each conversation of (role, text) what the model would be given, up to where it answers; None where the
    template refuses it, is broken, or takes too much time or memory"""
    nothing: list[str | None] = [None] * len(conversations)
    if len(template) > _LONGEST:
        return nothing
    question = {
        "template": template,
        "conversations": [[{"role": role, "content": text} for role, text in each] for each in conversations],
        "bos": bos,
        "eos": eos,
    }
    try:
        process = subprocess.run(
            [sys.executable, "-P", __file__],
            input=json.dumps(question).encode(),
            capture_output=True,
            timeout=_PATIENCE_SECONDS,
        )
        answer = json.loads(process.stdout)
    except (subprocess.TimeoutExpired, ValueError):
        return nothing
    return answer if len(answer) == len(conversations) else nothing


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


def _limit() -> None:
    try:
        import resource
    except ImportError:  # Windows: the patience of the parent is the only limit
        return
    for kind, most in ((resource.RLIMIT_AS, _MEMORY_BYTES), (resource.RLIMIT_CPU, _PROCESSOR_SECONDS)):
        _, hard = resource.getrlimit(kind)
        wanted = most if hard == resource.RLIM_INFINITY else min(most, hard)
        try:
            resource.setrlimit(kind, (wanted, hard))
        except (ValueError, OSError):  # macOS does not let every kind be set
            continue


def main() -> None:
    question = json.loads(sys.stdin.buffer.read())
    _limit()
    try:
        answers = _render_all(question)
    except Exception:  # not Jinja, or more than there is memory for
        answers = [None] * len(question["conversations"])
    sys.stdout.buffer.write(json.dumps(answers).encode())


if __name__ == "__main__":
    main()
