"""Texts to measure on: those in the package and the user's own file, and how they are cut into windows.

A loss depends on the kind of text: a model that lost nothing in English prose may have lost its Chinese. So the package
has one text for each domain (`corpora/README.md` names their authors), and the user's own file is better than any of
them.

Tokens are cut as llama-perplexity cuts them, so its numbers and ours are about the same predictions. Left out: guessing
the encoding of a file, because a wrong guess would be measured as a bad model; and changing anything in the text, line
ends included.
"""

from __future__ import annotations

import codecs
import gzip
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from thriftbit.errors import ThriftbitError, UsageError

DOMAINS = ("prose", "code", "math", "multilingual")
LIMIT_CHARACTERS = 8_000_000  # some two million tokens, more than any measurement has time for

CORPORA = Path(__file__).with_name("corpora")
_ORIGINS = {
    "prose": "WikiText-2, raw, test split (CC BY-SA 3.0)",
    "code": "HumanEval, problems with their solutions (MIT)",
    "math": "GSM8K, test split, 330 worked problems (MIT)",
    "multilingual": "Universal Declaration of Human Rights, 28 languages (public domain)",
}
_CHUNK_BYTES = 1 << 20
_MARKS = (  # that of UTF-32 begins like that of UTF-16, so it comes first
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2⁶⁴ divided by the golden ratio


@dataclass(frozen=True)
class Text:
    """domain: one of DOMAINS, or the file's name. origin: whose text it is, or the file's path."""

    domain: str
    text: str
    origin: str


def read_text(name_or_path: str, limit_characters: int = LIMIT_CHARACTERS) -> Text:
    """name_or_path: one of DOMAINS, or a text file in UTF-8, or in UTF-16 with its byte order mark. A file that is
    called like a domain is given as "./prose". limit_characters: no more than that is read of a file.

    Raises ThriftbitError for a file that cannot be read, is in another encoding, is binary or says nothing.
    """
    if name_or_path in DOMAINS:
        packed = (CORPORA / f"{name_or_path}.txt.gz").read_bytes()
        return Text(name_or_path, gzip.decompress(packed).decode(), _ORIGINS[name_or_path])
    path = Path(name_or_path)
    with opened(path, "a text file", f"the texts in the box are {', '.join(DOMAINS)}") as file:
        text = _decode(file, path, limit_characters)
    if not text:
        raise ThriftbitError(f"{path}: is empty; there is nothing to measure on")
    if not text.strip():
        raise ThriftbitError(f"{path}: has nothing but white space; there is nothing to measure on")
    return Text(path.name, text, str(path))


@contextmanager
def opened(path: Path, wanted: str, in_the_box: str) -> Iterator[BinaryIO]:
    """A user's file, while it is read. wanted, in_the_box: what errors say should be given, or could be.
    Raises ThriftbitError for whatever the system finds wrong with it."""
    try:
        if path.exists() and not path.is_file():
            kind = "a folder" if path.is_dir() else "no regular file"
            raise ThriftbitError(f"{path}: is {kind}; give {wanted}")
        with path.open("rb") as file:
            yield file
    except FileNotFoundError:
        raise ThriftbitError(f"{path}: no such file; {in_the_box}") from None
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise ThriftbitError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _decode(file: BinaryIO, path: Path, limit_characters: int) -> str:
    begin = file.read(4)
    mark, encoding = next(((mark, name) for mark, name in _MARKS if begin.startswith(mark)), (b"", "utf-8"))
    if encoding == "utf-32":
        raise ThriftbitError(f"{path}: is UTF-32 by its byte order mark; save it as UTF-8")
    decoder = codecs.getincrementaldecoder(encoding)()
    chunk, offset, pieces, characters = begin[len(mark) :], len(mark), list[str](), 0
    while characters < limit_characters:
        waiting = len(decoder.getstate()[0])  # of a character that the last chunk cut
        try:
            piece = decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            where = offset - waiting + error.start
            raise ThriftbitError(
                f"{path}: is not {encoding[:6].upper()}: byte {where} ({error.object[error.start]:#04x}) does not fit. "
                "Save it as UTF-8, for instance: iconv -f ITS_ENCODING -t UTF-8"
            ) from None
        zero = piece.find("\0")
        if zero >= 0:
            where = offset - waiting + len(piece[:zero].encode(encoding))
            raise ThriftbitError(
                f"{path}: is no text: byte {where} is zero. A binary file cannot be measured on; "
                "UTF-16 must begin with its byte order mark"
            )
        if not chunk:
            break
        pieces.append(piece)
        characters += len(piece)
        offset += len(chunk)
        chunk = file.read(_CHUNK_BYTES)
    return "".join(pieces)[:limit_characters]


def windows(tokens: Sequence[int], context_tokens: int, bos: int | None) -> NDArray[np.int64]:
    """Cuts a text's tokens as llama-perplexity does (tools/perplexity/perplexity.cpp, `perplexity`, `kl_divergence`):
    windows of context_tokens that do not overlap, the last partial one dropped; where the vocabulary begins a sequence
    with a token of its own, that replaces the first token of every window.

    tokens: of the whole text, as the vocabulary makes them; with its beginning-of-sequence token in front if it adds
    one (as `common_tokenize` with add_special does), for that shifts every window. bos: that token; None if it adds
    none. Return (windows, context_tokens). Which of their predictions count, `scored_positions` says. llama-perplexity
    asks for two windows at least; one is enough here, though no interval comes of it.

    Raises ThriftbitError if the text is shorter than a window.
    """
    scored_positions(context_tokens)
    count = len(tokens) // context_tokens
    if count < 1:
        raise ThriftbitError(
            f"the text has {len(tokens):,} tokens, and one window takes {context_tokens:,}: "
            "take a longer text or a smaller context"
        )
    cut = np.array(tokens[: count * context_tokens], np.int64).reshape(count, context_tokens)
    if bos is not None:
        cut[:, 0] = bos
    return cut


def scored_positions(context_tokens: int) -> range:
    """Return the positions of a window whose predictions count: from first = context_tokens // 2 to context_tokens - 2.
    Position i predicts token i + 1, so the tokens first + 1 … context_tokens - 1 are predicted: context_tokens - 1 -
    first of them, 255 of 512, each from at least first + 1 tokens before it. Raises UsageError if there are none."""
    if context_tokens < 3:
        raise UsageError(f"a context of {context_tokens} tokens leaves nothing to predict; it takes 3 at least")
    return range(context_tokens // 2, context_tokens - 1)


def spread(count: int, chosen: int) -> NDArray[np.int64]:
    """Return `chosen` of `count` indices (all, if it asks for more), spread over the whole range whatever their number.

    Neighbouring windows say much the same, so a part of a text says most about the whole where it is scattered. The
    order is that of multiples of the golden ratio modulo 1, each of which falls into one of the largest gaps the ones
    before it left (Sós 1957): deterministic, and nested, so that a longer measurement extends a shorter one. Sort them
    to have the text's order.
    """
    if count < 1 or chosen < 1:
        return np.empty(0, np.int64)
    multiples = np.arange(1, 3 * count + 2, dtype=np.uint64) * _GOLDEN  # modulo 2⁶⁴; no gap is left after 2.62 · count
    places = ((multiples >> np.uint64(32)) * np.uint64(count) >> np.uint64(32)).astype(np.int64)
    _, first_seen = np.unique(places, return_index=True)
    spread_out: NDArray[np.int64] = places[np.sort(first_seen)]
    return spread_out[:chosen]
