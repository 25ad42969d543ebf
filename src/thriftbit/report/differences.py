"""Two texts side by side, with the words that differ marked.

People read in words, so words are compared (characters, in writing without spaces). difflib finds the longest runs that
both texts share. Spaces and line breaks are shown as they were written, and not compared.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher

_COMPARED_WORDS = 400  # of each text, as difflib may take their third power; what follows counts as different
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"  # Thai to Chinese
_WORD = re.compile(rf"\s*([{_UNSPACED}]|[^\s{_UNSPACED}]+)")


@dataclass(frozen=True)
class Passage:
    text: str
    differs: bool


@dataclass(frozen=True)
class Comparison:
    """original, quantized: the whole texts in pieces. identical: to the last character. same_words: the share of the
    original's words that the other text has as well, in order. agreed_words: how many words both begin with."""

    original: tuple[Passage, ...]
    quantized: tuple[Passage, ...]
    identical: bool
    same_words: float
    agreed_words: int


def compare_texts(original: str, quantized: str) -> Comparison:
    a, b = _words(original), _words(quantized)
    blocks = SequenceMatcher(None, a[:_COMPARED_WORDS], b[:_COMPARED_WORDS], autojunk=False).get_matching_blocks()
    same_a = {place for block in blocks for place in range(block.a, block.a + block.size)}
    same_b = {place for block in blocks for place in range(block.b, block.b + block.size)}
    return Comparison(
        original=tuple(_pieces(original, same_a)),
        quantized=tuple(_pieces(quantized, same_b)),
        identical=original == quantized,
        same_words=len(same_a) / len(a) if a else float(not b),
        agreed_words=next((n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b))),
    )


def _words(text: str) -> list[str]:
    return _WORD.findall(text)


def _pieces(text: str, same: set[int]) -> Iterator[Passage]:
    """Return runs of words that differ or not; the space around a run that differs is not part of it."""
    begin, differs = 0, False
    end = 0
    for place, match in enumerate(_WORD.finditer(text)):
        if (place not in same) != differs:
            cut = match.start(1) if not differs else end
            if cut > begin:
                yield Passage(text[begin:cut], differs)
            begin, differs = cut, not differs
        end = match.end()
    if differs and end > begin:
        yield Passage(text[begin:end], True)
        begin, differs = end, False
    if len(text) > begin:
        yield Passage(text[begin:], differs)
