"""Pieces around turns as a template in Go's language, as Ollama runs it.

Ollama gives it `.Messages`, each with `.Role` and `.Content`, neighbours of one role joined, and takes what comes out
as the model's prompt; where the last message is the assistant's, the model goes on with it. A system's text in the
middle of a conversation goes before the next question. Ollama lets llama.cpp put the token of the beginning, so it is
not in the template.

Language: https://pkg.go.dev/text/template. Ollama's side: its docs/template.mdx and template/template.go.
"""

from __future__ import annotations

from thriftbit.runtime.export.turns import Turns

CONTINUE = "{{ .Prompt }}"  # for models without a chat template: text in, and its continuation out


def go_template(turns: Turns) -> str:
    """-> the template"""
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
    """-> the text where Go's language stands for itself"""
    return text.replace("{", '{{ "{" }}')
