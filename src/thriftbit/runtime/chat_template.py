"""How a conversation is put to a model whose file does not say it, or says it in a way that llama.cpp cannot use.

A file without a template is mostly a model that continues text and was never taught to chat; llama.cpp would put
ChatML's marks before it, which it reads as noise. So ChatML is for vocabularies that have its marks, and every other
model gets what it has seen on thousands of pages: a dialogue, with names before the lines.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gguf import Keys

from thriftbit.sources.gguf_source import read_parts

_CHATML_MARKS = ("<|im_start|>", "<|im_end|>")
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
DIALOGUE = (
    "{% for message in messages %}{% if message['role'] == 'system' %}{{ message['content'] }}\n\n"
    "{% else %}{{ 'User' if message['role'] == 'user' else 'Assistant' }}: {{ message['content'] }}\n{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)


@dataclass(frozen=True)
class Fallback:
    """template: in Jinja. ends: texts at which an answer ends, as the model will not end it. words: for the user."""

    template: str
    ends: tuple[str, ...]
    words: str


def has_template(path: Path) -> bool:
    template = read_parts(path)[0].metadata.get(Keys.Tokenizer.CHAT_TEMPLATE)
    return isinstance(template, str) and bool(template.strip())  # an empty one is none


def fallback_for(path: Path) -> Fallback:
    pieces = read_parts(path)[0].metadata.get(Keys.Tokenizer.LIST)
    if isinstance(pieces, list) and set(_CHATML_MARKS) <= set(pieces):
        return Fallback(CHATML, (), "ChatML is used, whose marks it knows")
    return Fallback(
        DIALOGUE,
        ("\nUser:", "\nAssistant:"),
        "it is shown a dialogue to continue. It may never have been taught to chat",
    )
