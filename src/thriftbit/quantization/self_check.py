"""After quantizing: does llama.cpp read text with this file as the original's own tokenizer does?

A wrong tokenizer is the quietest mistake there is: the file runs, and its answers are a little worse. So the ids of a
few texts are compared: those that the folder's tokenizer gives (`runtime/source_tokenizer.py`) and those that llama.cpp
gives with the written file's metadata. It takes seconds, whatever the size of the model, because no weights are loaded.

The texts are where tokenizers differ: many scripts, runs of white space, digits, code, emoji, white space around added
tokens, and a dialogue in the model's own chat template. Left out: text that is not in Unicode's composed form (NFC),
which llama.cpp never composes, and the logits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from gguf import Keys, TokenType

from thriftbit.containers.gguf_reader import read_gguf
from thriftbit.containers.gguf_values import Metadata
from thriftbit.errors import ThriftbitError, shown
from thriftbit.runtime.export.rendering import render
from thriftbit.runtime.source_tokenizer import source_ids
from thriftbit.runtime.tokenizer import Tokenizer
from thriftbit.sources.model import Model

TEXTS = (
    "The quick brown fox jumps over the lazy dog.",
    " leading space, trailing space ",
    "two  spaces, three   spaces,\ttabs\t\tand\n\n\nnew lines\r\n",
    "    indented = {'a': [1, 22, 333, 4444], \"b\": 0x1F}  # comment",
    "def f(x):\n\treturn x ** 2 if x != 0 else None\n\n\nprint(f(3.14159))",
    "for (int i = 0; i < n; ++i) { sum += a[i] * b[i]; }",
    "1 12 123 1234 12345 123456 1,234,567.89 2026-11-30",
    "I'm you're we've they'd it'll don't I'M DON'T",
    "camelCase snake_case SCREAMING_CASE kebab-case",
    "https://example.org/path?query=1&other=two#part",
    "Größe, Übermut, naïve café, déjà vu, señor, ação",
    "Привет, как дела? Съешь ещё этих мягких французских булок.",
    "Ελληνικά γράμματα και λέξεις",
    "你好，世界！今天天气怎么样？",
    "こんにちは世界。カタカナとひらがな。",
    "안녕하세요 세계",
    "مرحبا بالعالم، كيف حالك؟",
    "שלום עולם",
    "नमस्ते दुनिया",
    "สวัสดีชาวโลก",
    "Xin chào thế giới",
    "😀👍🏽👩‍👩‍👧 🇺🇳 ❤️",
    "∑ x² ≤ ∞, α → β, 3 × 4 ÷ 2 ≠ 5",
    "~!@#$%^&*()_+`-={}|[]\\:\";'<>?,./",
)
DIALOGUE = (("system", "You are brief."), ("user", "What is 12 + 30?\n\nSay it in two words."))
MARKS = 4  # added tokens that are tried with white space around them


@dataclass(frozen=True)
class TokenCheck:
    """texts: how many were compared. differing: how many of them llama.cpp reads otherwise. text, source_ids, file_ids:
    the first of those. skipped: why nothing was compared, "" if it was."""

    texts: int = 0
    differing: int = 0
    text: str = ""
    source_ids: tuple[int, ...] = ()
    file_ids: tuple[int, ...] = ()
    skipped: str = ""

    def describe(self) -> str:
        """Return a sentence for people."""
        if self.skipped:
            return f"Tokenizer not checked: {self.skipped}"
        if not self.differing:
            return f"Tokenizer checked: llama.cpp reads {self.texts} texts as the original does"
        at = next(
            (n for n, (a, b) in enumerate(zip(self.source_ids, self.file_ids, strict=False)) if a != b),
            min(len(self.source_ids), len(self.file_ids)),
        )
        original, ours = (list(ids[max(0, at - 1) : at + 4]) for ids in (self.source_ids, self.file_ids))
        return (
            f"Warning: llama.cpp reads {self.differing} of {self.texts} texts otherwise than the original's tokenizer. "
            f"The first is {shown(self.text)}: from token {at + 1} on the original has {original}, llama.cpp {ours}"
        )


@dataclass(frozen=True)
class LogitCheck:
    """compared: how many parameters of the file were held against the original's. differing: those that are not the
    original's, rounded -> by what share of their size they differ. texts: after how many of them llama.cpp's next
    token was compared with transformers', which computes with the same weights. apart, limit: how far the logits are
    from each other, and what is still in order; see `logit_check.py`. skipped: why no logits were compared, "" if they
    were."""

    compared: int = 0
    differing: Mapping[str, float] = field(default_factory=dict)
    texts: int = 0
    apart: float = 0.0
    limit: float = 0.0
    skipped: str = ""

    @property
    def is_wrong(self) -> bool:
        return bool(self.differing) or not self.apart <= self.limit

    def describe(self) -> str:
        """Return a sentence for people."""
        if self.differing:
            worst = max(self.differing, key=lambda name: self.differing[name])
            return (
                f"Warning: {len(self.differing)} of {self.compared} weight matrices and vectors are not the "
                f"original's, rounded. The worst is {worst}, which differs by {self.differing[worst]:.0%} of its size"
            )
        if self.is_wrong:
            return (
                "Warning: llama.cpp computes something else with this file than transformers does with its weights "
                f"({self.apart:.3f} apart, where {self.limit:.3f} is the limit)"
            )
        weights = f"Weights checked: {self.compared} matrices and vectors are the original's, rounded"
        if self.skipped:
            return f"{weights}. Logits not checked: {self.skipped}" if self.compared else self.skipped
        return (
            f"{weights}; llama.cpp computes the same with them as transformers "
            f"({self.apart:.3f} apart, the limit is {self.limit:.3f})"
        )


def check_tokens(model: Model, path: Path) -> TokenCheck:
    """model: as it was opened. path: the file made of it. Returns what comparing their tokenizers showed."""
    if model.folder is None:
        return TokenCheck(skipped="the source is a GGUF, whose tokenizer was carried over as it is")
    metadata = read_gguf(path).metadata
    texts = (*TEXTS, *_around_marks(metadata), *_prompt(metadata))
    source = source_ids(model.folder, texts)
    if source is None:
        return TokenCheck(skipped="no library here can run the original's tokenizer; try: pip install tokenizers")
    try:
        with Tokenizer(metadata, str(path)) as tokenizer:
            found = tokenizer.tokenize(texts, add_special=False, parse_special=True)
            begun = tokenizer.tokenize(texts[:1], add_special=True, parse_special=True)
    except ThriftbitError as error:
        return TokenCheck(skipped=str(error))
    return _compared([*texts, texts[0]], [*source.ids, source.begun], [*found, *begun])


def _compared(texts: Sequence[str], expected: Sequence[list[int]], found: Sequence[list[int]]) -> TokenCheck:
    differing = [
        (text, ours, theirs) for text, ours, theirs in zip(texts, expected, found, strict=True) if ours != theirs
    ]
    if not differing:
        return TokenCheck(len(texts))
    text, ours, theirs = differing[0]
    return TokenCheck(len(texts), len(differing), text, tuple(ours), tuple(theirs))


def _prompt(metadata: Metadata) -> list[str]:
    """Return a dialogue as the chat template renders it; none without a template, or with one that renders nothing."""
    template, tokens = metadata.get(Keys.Tokenizer.CHAT_TEMPLATE), metadata.get(Keys.Tokenizer.LIST)
    if not isinstance(template, str) or not isinstance(tokens, list):
        return []

    def text(key: str) -> str:
        number = metadata.get(key)
        return tokens[int(number)] if isinstance(number, np.integer) and number < len(tokens) else ""

    dialogues = (DIALOGUE, DIALOGUE[1:])  # some templates refuse a system's text
    rendered = render(template, dialogues, text(Keys.Tokenizer.BOS_ID), text(Keys.Tokenizer.EOS_ID))
    return [next(prompt for prompt in rendered if prompt)] if any(rendered) else []


def _around_marks(metadata: Metadata) -> list[str]:
    """Return texts with white space around some of the tokens that are cut out of a text before anything else."""
    texts, kinds = metadata.get(Keys.Tokenizer.LIST), metadata.get(Keys.Tokenizer.TOKEN_TYPE)
    if not isinstance(texts, list) or not isinstance(kinds, np.ndarray):
        return []
    cut_out = (TokenType.CONTROL, TokenType.USER_DEFINED)
    marks = [text for text, kind in zip(texts, kinds, strict=False) if kind in cut_out and text.strip() == text]
    chosen = [*marks[: MARKS // 2], *marks[-(MARKS // 2) :]] if len(marks) > MARKS else marks
    return [f"{mark}\nHello {mark} world{mark}\n\n{mark}  end" for mark in chosen]
