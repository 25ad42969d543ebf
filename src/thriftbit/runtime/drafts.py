"""Whether a smaller model may write ahead for a larger one.

The larger model checks every token that the smaller one guesses. So the answer is the larger one's own, token for
token, and a good guess saves time. Both have to mean the same by a token's number: llama.cpp compares the vocabularies
when it loads, and ends with an assertion in some cases. Here they are compared before anything is loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from thriftbit.errors import ThriftbitError
from thriftbit.sources.gguf_source import read_parts

_KIND, _TOKENS = "tokenizer.ggml.model", "tokenizer.ggml.tokens"
_MOST_APART = 128  # tokens that one vocabulary may have more than the other: llama.cpp's common/speculative.cpp


def check_draft(path: Path, draft: Path) -> None:
    """path, draft: GGUF files. Raises ThriftbitError where the draft is missing, damaged, or has another vocabulary."""
    if not draft.is_file():
        raise ThriftbitError(
            f"--draft {draft}: no such file; say none, ngram, mtp or a smaller GGUF of the same family"
        )
    ours, theirs = (read_parts(file)[0].metadata for file in (path, draft))
    words = f"--draft {draft}: it has another vocabulary than {path.name}, so its guesses would mean other words"
    if ours.get(_KIND) != theirs.get(_KIND):
        raise ThriftbitError(f"{words} ({theirs.get(_KIND)} and {ours.get(_KIND)})")
    tokens, others = _tokens(ours.get(_TOKENS)), _tokens(theirs.get(_TOKENS))
    if abs(len(tokens) - len(others)) > _MOST_APART:
        raise ThriftbitError(f"{words} ({len(others):,} and {len(tokens):,} tokens)")
    different = next((n for n, (a, b) in enumerate(zip(tokens, others, strict=False)) if a != b), None)
    if different is not None:
        raise ThriftbitError(f"{words} (token {different:,} is {others[different]!r} and {tokens[different]!r})")


def _tokens(value: object) -> Sequence[object]:
    return value if isinstance(value, list) else []
