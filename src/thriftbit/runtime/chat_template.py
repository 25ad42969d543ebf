"""How a conversation is put to a model: by the file's own chat template, or by ours where the file has none that works.

A file without a template is mostly a model that continues text and was never taught to chat; llama.cpp would put
ChatML's marks before it, which such a model reads as noise. So ChatML is for vocabularies that have its marks, and
every other model gets what it has seen on thousands of pages: a dialogue, with names before the lines.

A template of nothing but spaces shows the model nothing, and counts as none. Every other one is tried before a model is
loaded with it (`template_trial.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from gguf import Keys

from thriftbit.containers.gguf_values import Metadata
from thriftbit.errors import ThriftbitError
from thriftbit.runtime.template_trial import TOOL_USE, why_unusable
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


NOT_CHATTING = DIALOGUE  # for engines that only continue texts: the file's own template is not even looked at


@dataclass(frozen=True)
class Fallback:
    """What is used in place of the file's own chat template. template: in Jinja. ends: texts at which an answer ends,
    as the model will not end it. note: a sentence for the user, on why. is_instead: whether the file has a template."""

    template: str
    ends: tuple[str, ...]
    note: str
    is_instead: bool = True


def fallback_for(path: Path) -> Fallback | None:
    """Return what to use in place of the file's chat template; None if the file's own can be used."""
    state = path.stat()
    return _fallback_for(path, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=64)
def _fallback_for(path: Path, changed_ns: int, size_bytes: int) -> Fallback | None:
    try:
        metadata = read_parts(path)[0].metadata
    except ThriftbitError:  # llama.cpp may read more than we do; a template that we cannot try is not used
        return replace(_ours(path, {}, "cannot be read here to the end, nor its chat template"), is_instead=False)
    template, tool_use = _text(metadata, Keys.Tokenizer.CHAT_TEMPLATE), _text(metadata, TOOL_USE)
    if template is None and tool_use is None:
        return replace(_ours(path, metadata, "has no chat template"), is_instead=False)
    reason = why_unusable(template or "", tool_use, _token(metadata, "bos"), _token(metadata, "eos"))
    return _ours(path, metadata, f"has a chat template that {reason}") if reason else None


def fallback_after(path: Path, reason: str) -> Fallback:
    """reason: why the file's chat template is used no longer, to stand after its name"""
    return _ours(path, read_parts(path)[0].metadata, reason)


def _ours(path: Path, metadata: Metadata, reason: str) -> Fallback:
    pieces = metadata.get(Keys.Tokenizer.LIST)
    if isinstance(pieces, list) and set(_CHATML_MARKS) <= set(pieces):
        found = Fallback(CHATML, (), "ChatML is used, because the model knows its marks")
    else:
        words = "it is probably a base model, and continues your text rather than answers it"
        found = Fallback(DIALOGUE, ("\nUser:", "\nAssistant:"), words)
    return replace(found, note=f"Note: {path.name} {reason}: {found.note}.")


def _text(metadata: Metadata, key: str) -> str | None:
    """Return a template, unless it is none or shows nothing."""
    value = metadata.get(key)
    return value if isinstance(value, str) and value.strip() else None


def _token(metadata: Metadata, name: str) -> str | None:
    """Return the text of the token "bos" or "eos"."""
    number, tokens = metadata.get(f"tokenizer.ggml.{name}_token_id"), metadata.get(Keys.Tokenizer.LIST)
    try:
        return str(tokens[int(number)])[:200] or None  # type: ignore[index, arg-type]
    except (TypeError, ValueError, IndexError, KeyError):
        return None
