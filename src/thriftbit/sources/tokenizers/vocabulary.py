"""The list of tokens as GGUF holds it: one text, type and score for every row of the embedding.

Ids come from strangers' files, so each id is checked against the rows of the embedding before its slot is filled. An
added token beyond the embedding is left out, because a model cannot read a token without a row. Rows without a token
become unused tokens, with the names that llama.cpp's converter gives them. llama.cpp looks tokens up by text and aborts
if two are the same; here that is a ThriftbitError."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

import gguf
import numpy as np

from thriftbit.containers.gguf_values import MetadataValue
from thriftbit.errors import ThriftbitError, shown

# Tokens that are control tokens, although files may declare them otherwise: they should never be shown as text, or be
# read from a user's text. The list is llama.cpp's.
LOOKS_SPECIAL = re.compile(r"<\|.*\|>|<｜.*｜>|<unused.*>|<pad>|<mask>|<2mass>|\[@BOS@\]", re.DOTALL)

# The score of a token that plain text must not merge into: lower than every score in a vocabulary.
NEVER_MERGED = -1e9


@dataclass(frozen=True)
class AddedToken:
    """A token that is cut out of the text before anything else happens to it.

    special: whether it is a control token. takes_left, takes_right: whether it swallows the white space before or after
    it (`lstrip`, `rstrip`). whole_words: whether it is found only as a whole word (`single_word`)."""

    id: int
    text: str
    special: bool
    takes_left: bool = False
    takes_right: bool = False
    whole_words: bool = False

    @property
    def kind(self) -> gguf.TokenType:
        control = self.special or LOOKS_SPECIAL.fullmatch(self.text)
        return gguf.TokenType.CONTROL if control else gguf.TokenType.USER_DEFINED


class Vocabulary:
    """The slots of a vocabulary, one for each row of the embedding. size: how many. origin: the file that errors
    name."""

    def __init__(self, origin: str, size: int) -> None:
        self.origin = origin
        self.size = size
        self._texts: dict[int, str] = {}
        self._kinds: dict[int, gguf.TokenType] = {}
        self._scores: dict[int, float] = {}
        self.left_out: list[AddedToken] = []  # added tokens beyond the embedding

    def place(self, token_id: Any, text: str, kind: gguf.TokenType, score: float = 0.0) -> None:
        """Fill a slot. Raises ThriftbitError if the id is not one of the embedding's rows, or is taken already."""
        self._check(token_id, text)
        if token_id in self._texts:
            raise ThriftbitError(
                f"{self.origin}: {shown(self._texts[token_id])} and {shown(text)} share the id {token_id}"
            )
        self._set(token_id, text, kind, score)

    def place_added(self, token: AddedToken, text: str, replaced: str) -> None:
        """Add a token, or change the type of one that is there. Leaves the token out if the embedding has no row for
        it.

        text: the container's text of the token. replaced: the text that its slot may hold already. Raises
        ThriftbitError if the slot holds anything else."""
        if token.id >= self.size:
            self.left_out.append(token)
            return
        self._check(token.id, token.text)
        known = self._texts.get(token.id, replaced)
        if known != replaced:
            raise ThriftbitError(f"{self.origin}: the id {token.id} is {shown(known)} and {shown(token.text)} at once")
        self._set(token.id, text, token.kind, NEVER_MERGED)

    def ids(self) -> dict[str, int]:
        """Return the id of each token by its text, padding excluded."""
        return {text: token_id for token_id, text in self._texts.items()}

    def special(self) -> set[int]:
        """Return the ids that llama.cpp cuts out of a text: control, user-defined and unknown tokens."""
        kinds = (gguf.TokenType.CONTROL, gguf.TokenType.USER_DEFINED, gguf.TokenType.UNKNOWN)
        return {token_id for token_id, kind in self._kinds.items() if kind in kinds}

    def metadata(self, scores: bool) -> dict[str, MetadataValue]:
        """Return the keys of tokens, types and, if `scores`, scores. Raises ThriftbitError if two tokens have the same
        text."""
        texts = [self._texts.get(row, f"[PAD{row}]") for row in range(self.size)]
        if len(set(texts)) != self.size:
            text, times = Counter(texts).most_common(1)[0]
            raise ThriftbitError(f"{self.origin}: the token {shown(text)} has {times} ids; llama.cpp allows one")
        keys = gguf.Keys.Tokenizer
        kinds = [self._kinds.get(row, gguf.TokenType.UNUSED) for row in range(self.size)]
        metadata: dict[str, MetadataValue] = {keys.LIST: texts}
        if scores:
            values = [self._scores.get(row, NEVER_MERGED) for row in range(self.size)]
            metadata[keys.SCORES] = np.array(values, dtype=np.float32)
        metadata[keys.TOKEN_TYPE] = np.array(kinds, dtype=np.int32)
        return metadata

    def _check(self, token_id: Any, text: str) -> None:
        if type(token_id) is not int or token_id < 0:
            raise ThriftbitError(f"{self.origin}: the token {shown(text)} has the id {shown(token_id)}, no number")
        if token_id >= self.size:
            raise ThriftbitError(
                f"{self.origin}: the token {shown(text)} has the id {token_id}, but the model's embedding has only "
                f"{self.size} rows. The tokenizer belongs to another model, or was extended without it"
            )

    def _set(self, token_id: int, text: str, kind: gguf.TokenType, score: float) -> None:
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ThriftbitError(f"{self.origin}: the token {shown(text)} is not valid Unicode") from None
        self._texts[token_id], self._kinds[token_id], self._scores[token_id] = text, kind, score
