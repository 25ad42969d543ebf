"""SentencePiece BPE (Llama 2, Mistral, Gemma, Phi-3): llama.cpp's "llama" tokenizer.

llama.cpp merges any two neighbours that join to a token, the one with the highest score first. That is SentencePiece's
own algorithm, and tokenizer.model holds the scores. It is read here without the `sentencepiece` library: the format is
a plain list of pieces, and the settings that decide whether llama.cpp can follow are not in the library's interface.

A folder may hold only tokenizer.json, with ranked merges instead of scores. The two are equivalent if every way to
split a token into two tokens is a merge. Files that were made from SentencePiece models are so. Then a token's score is
the negated rank of its first merge. Any other vocabulary is refused, because llama.cpp would merge pairs that the
tokenizer does not merge. (llama.cpp's own converter gives all tokens the same score.)

Settings that llama.cpp does not have are refused: normalization (NFKC and the like), squeezing runs of spaces, the
Unigram model. One difference remains: with a space before the text (add_space_prefix), llama.cpp also puts a space
after every added token and before a text that begins with a space, as Llama 2 did. Newer tokenizers do neither (a
Metaspace with prepend_scheme "first")."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from thriftbit.containers.gguf_values import MetadataValue
from thriftbit.containers.regular_files import open_regular
from thriftbit.errors import ThriftbitError, shown
from thriftbit.sources.tokenizers.byte_pair import BytePairTokenizer
from thriftbit.sources.tokenizers.pre_tokenizers import flat_steps
from thriftbit.sources.tokenizers.vocabulary import NEVER_MERGED, AddedToken, Vocabulary

SPACE = "▁"  # U+2581, which SentencePiece writes for a space
BYTE_TOKENS = frozenset(f"<0x{byte:02X}>" for byte in range(256))

MODEL_LIMIT_BYTES = 64 << 20
BPE_MODEL_TYPE = 2

# The numbers of fields in sentencepiece_model.proto
PIECES, TRAINER_SPEC, NORMALIZER_SPEC = 1, 2, 3
PIECE_TEXT, PIECE_SCORE, PIECE_KIND = 1, 2, 3
TRAINER_MODEL_TYPE, TRAINER_SPACE_AS_SUFFIX = 3, 24
NORMALIZER_CHARACTER_MAP, NORMALIZER_SPACE_PREFIX, NORMALIZER_SQUEEZE_SPACES = 2, 3, 4

# Protocol Buffers: the kinds of value (protobuf.dev/programming-guides/encoding)
VARINT, FIXED64, LENGTH_DELIMITED, FIXED32 = 0, 1, 2, 5
LONGEST_VARINT_BYTES = 10


@dataclass(frozen=True)
class Piece:
    text: str
    score: float
    kind: gguf.TokenType  # GGUF uses SentencePiece's numbers


@dataclass(frozen=True)
class SentencePieceTokenizer:
    """pieces: by id. space_prefix: whether a space is put before the text."""

    origin: Path
    pieces: dict[int, Piece]
    space_prefix: bool


def sentencepiece_metadata(
    tokenizer: SentencePieceTokenizer, added: Iterable[AddedToken], vocabulary: Vocabulary
) -> dict[str, MetadataValue]:
    """Return the keys of model, tokens, scores, types and the treatment of spaces. Fills `vocabulary`."""
    missing = BYTE_TOKENS - {piece.text for piece in tokenizer.pieces.values()}
    if missing:
        raise ThriftbitError(
            f"{tokenizer.origin} has no token for some bytes ({min(missing)} and {len(missing) - 1} more); llama.cpp "
            "needs all 256 to write characters that have no token"
        )
    for token_id, piece in tokenizer.pieces.items():
        vocabulary.place(token_id, _contained(piece.text, piece.kind), piece.kind, piece.score)
    for token in added:
        known = tokenizer.pieces.get(token.id)
        if known is None:
            replaced = token.text
        elif known.text == token.text and known.kind in (gguf.TokenType.UNKNOWN, gguf.TokenType.BYTE):
            continue  # the vocabulary tells its type more precisely
        elif known.text == token.text or known.kind not in (gguf.TokenType.NORMAL, gguf.TokenType.BYTE):
            replaced = _contained(known.text, known.kind)  # fine-tunes rename reserved pieces
        else:
            replaced = token.text
        vocabulary.place_added(token, _contained(token.text, token.kind), replaced)
    keys = gguf.Keys.Tokenizer
    return {
        keys.MODEL: "llama",
        keys.PRE: "default",
        **vocabulary.metadata(scores=True),
        keys.ADD_PREFIX: tokenizer.space_prefix,
        keys.REMOVE_EXTRA_WS: False,
    }


# Tokens of a chat that a program wants to see in an answer; control tokens would not be shown.
SHOWN = ("<|channel>", "<channel|>", "<|tool_call>", "<tool_call|>", "<|tool_response>", "<tool_response|>", '<|"|>')
NO_SCORE = -1000.0  # what llama.cpp's converter writes where merges decide


def merged_metadata(
    tokenizer: BytePairTokenizer, added: Iterable[AddedToken], vocabulary: Vocabulary
) -> dict[str, MetadataValue]:
    """Return the same keys as `sentencepiece_metadata`, and the merges. This is Gemma 4's kind of tokenizer:
    SentencePiece's spelling and bytes, but an explicit list of merges. llama.cpp's "gemma4" merges within each line of
    the text."""
    if space_prefix(tokenizer):
        raise ThriftbitError(f"{tokenizer.path} puts a space before the text, and llama.cpp's gemma4 does not")
    across = [left + right for left, right in tokenizer.merges if 0 < (left + right).count("\n") < len(left + right)]
    if across:
        raise ThriftbitError(
            f"{tokenizer.path} merges across the end of a line ({shown(across[0])}), and llama.cpp does not"
        )
    metadata = sentencepiece_metadata(_by_text(tokenizer, {}, NO_SCORE), added, vocabulary)
    keys, ids = gguf.Keys.Tokenizer, vocabulary.ids()
    kinds = np.array(metadata[keys.TOKEN_TYPE])
    kinds[[ids[text] for text in SHOWN if text in ids]] = gguf.TokenType.USER_DEFINED
    del metadata[keys.PRE]
    merges = [f"{left} {right}" for left, right in tokenizer.merges]
    return metadata | {keys.MODEL: "gemma4", keys.TOKEN_TYPE: kinds, keys.MERGES: merges}


def _contained(text: str, kind: gguf.TokenType) -> str:
    """Return the text of a token as the GGUF has it: user-defined tokens with spaces, because llama.cpp looks for these
    tokens before it replaces spaces by ▁."""
    return text.replace(SPACE, " ") if kind == gguf.TokenType.USER_DEFINED else text


def read_sentencepiece_model(path: Path) -> SentencePieceTokenizer:
    """Return the content of tokenizer.model. Raises ThriftbitError if the file is none, or llama.cpp cannot follow
    it."""
    with open_regular(path) as file:
        data = file.read(MODEL_LIMIT_BYTES + 1)
    if len(data) > MODEL_LIMIT_BYTES:
        raise ThriftbitError(f"{path} is larger than {MODEL_LIMIT_BYTES >> 20} MiB, which no SentencePiece model is")
    try:
        pieces: dict[int, Piece] = {}
        settings: dict[int, dict[int, int | bytes]] = {TRAINER_SPEC: {}, NORMALIZER_SPEC: {}}
        for number, value in fields(data):
            if number == PIECES:
                pieces[len(pieces)] = _piece(value)
            elif number in settings:
                settings[number].update(fields(_bytes(value)))
    except ValueError as error:  # also what a UnicodeDecodeError is
        raise ThriftbitError(
            f"{path} is not a SentencePiece model ({error}). If it is tiktoken's, save it as tokenizer.json: "
            "transformers' AutoTokenizer.from_pretrained(...).save_pretrained(...)"
        ) from None
    if not pieces:
        raise ThriftbitError(f"{path} is not a SentencePiece model: it has no pieces")
    trainer, normalizer = settings[TRAINER_SPEC], settings[NORMALIZER_SPEC]
    refusals = {
        "is a Unigram model, and only BPE is supported": trainer.get(TRAINER_MODEL_TYPE, 1) != BPE_MODEL_TYPE,
        "writes spaces at the end of words": bool(trainer.get(TRAINER_SPACE_AS_SUFFIX)),
        "normalizes text": bool(normalizer.get(NORMALIZER_CHARACTER_MAP)),
        "squeezes runs of spaces into one": bool(normalizer.get(NORMALIZER_SQUEEZE_SPACES, 1)),
    }
    for reason, applies in refusals.items():
        if applies:
            raise ThriftbitError(f"{path} {reason}: llama.cpp's SentencePiece tokenizer would read text differently")
    return SentencePieceTokenizer(path, pieces, space_prefix=bool(normalizer.get(NORMALIZER_SPACE_PREFIX, 1)))


def _piece(value: int | bytes) -> Piece:
    content = dict(fields(_bytes(value)))
    encoded_score = _bytes(content.get(PIECE_SCORE, b"\0\0\0\0"))
    score = struct.unpack("<f", encoded_score)[0] if len(encoded_score) == 4 else math.nan
    if not math.isfinite(score):
        raise ValueError("a score is no number")
    return Piece(
        text=_bytes(content.get(PIECE_TEXT, b"")).decode(),
        score=score,
        kind=gguf.TokenType(int(content.get(PIECE_KIND, gguf.TokenType.NORMAL))),
    )


def _bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise ValueError("a number where text belongs")
    return value


def from_tokenizer_json(tokenizer: BytePairTokenizer) -> SentencePieceTokenizer:
    """Return the SentencePiece model that a tokenizer.json with byte fallback was made from, scores recovered."""
    _refuse_foreign_merges(tokenizer)
    scores: dict[str, float] = {}
    for rank, (left, right) in enumerate(tokenizer.merges):
        scores.setdefault(left + right, float(-rank))
    return _by_text(tokenizer, scores, NEVER_MERGED)


def _by_text(tokenizer: BytePairTokenizer, scores: Mapping[str, float], otherwise: float) -> SentencePieceTokenizer:
    pieces = {}
    for text, token_id in tokenizer.tokens.items():
        kind = gguf.TokenType.BYTE if text in BYTE_TOKENS else gguf.TokenType.NORMAL
        if text == tokenizer.unknown:
            kind = gguf.TokenType.UNKNOWN
        pieces[token_id] = Piece(text, scores.get(text, otherwise), kind)
    return SentencePieceTokenizer(tokenizer.path, pieces, space_prefix(tokenizer))


def space_prefix(tokenizer: BytePairTokenizer) -> bool:
    """Return whether the tokenizer puts a space before the text. Raises ThriftbitError if it changes the text
    otherwise."""
    prefixed = False
    for step in flat_steps(tokenizer.normalizer, "normalizers"):
        match step:
            case {"type": "Prepend", "prepend": "▁"}:
                prefixed = True
            case {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}:
                pass
            case _:
                raise ThriftbitError(f"{tokenizer.path} normalizes text in a way that llama.cpp cannot: {shown(step)}")
    return _metaspace_prefix(tokenizer.pre_tokenizer, tokenizer.path) or prefixed


def _metaspace_prefix(step: Any, path: Path) -> bool:
    match step:
        case None | {"type": "Split", "pattern": {"String": " "}}:  # the normalizer has left no space to split at
            return False
        case {"type": "Metaspace", "replacement": "▁", "split": False}:
            return bool(step.get("prepend_scheme", "always") != "never")
        case _:
            raise ThriftbitError(f"{path} has a pre-tokenizer that llama.cpp does not know: {shown(step)}")


def _refuse_foreign_merges(tokenizer: BytePairTokenizer) -> None:
    tokens, merges = tokenizer.tokens, set(tokenizer.merges)
    products = {left + right for left, right in merges}
    for text in products:
        for cut in range(1, len(text)):
            left, right = text[:cut], text[cut:]
            if left in tokens and right in tokens and (left, right) not in merges:
                raise ThriftbitError(
                    f"{tokenizer.path}: {shown(left)} and {shown(right)} join to a token but do not merge. llama.cpp "
                    "merges all that join, as SentencePiece does, so it would read this tokenizer differently"
                )


def fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield (field number, value) in the order of the message. Raises ValueError if the message is malformed."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, wire_type = key >> 3, key & 7
        if wire_type == VARINT:
            value, at = _varint(message, at)
            yield number, value
            continue
        if wire_type == LENGTH_DELIMITED:
            size, at = _varint(message, at)
        elif wire_type in (FIXED32, FIXED64):
            size = 4 if wire_type == FIXED32 else 8
        else:
            raise ValueError(f"wire type {wire_type}")
        if size > len(message) - at:
            raise ValueError("cut off")
        yield number, message[at : at + size]
        at += size


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """Return the number that starts at `at`, and where it ends."""
    value = 0
    for count, byte in enumerate(message[at : at + LONGEST_VARINT_BYTES]):
        value |= (byte & 0x7F) << (7 * count)
        if byte < 0x80:
            return value, at + count + 1
    raise ValueError("cut off")
