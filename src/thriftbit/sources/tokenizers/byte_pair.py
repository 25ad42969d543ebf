"""Byte-pair encoding: tokenizer.json as the `tokenizers` library writes it, and llama.cpp's "gpt2" tokenizer.

Only BPE is read. llama.cpp has WordPiece and Unigram, too, but no model family that Thriftbit knows uses them.
Everything that the `tokenizers` library refuses (a merge of tokens that do not exist, two tokens with one id) is
refused here as well.

A byte-level tokenizer (GPT-2 and nearly everything since) is written as it is: tokens and merges in GPT-2's byte
alphabet, added tokens as plain text, because llama.cpp, too, cuts them out of the text first. llama.cpp does no Unicode
normalization. NFC is accepted, since nearly all text is in that form already; decomposed text becomes other tokens. Any
other normalizer is refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf

from thriftbit.containers.gguf_values import MetadataValue
from thriftbit.errors import ThriftbitError, shown
from thriftbit.sources.tokenizers.pre_tokenizers import (
    flat_steps,
    pre_tokenizer_name,
    space_prefix_refused,
    without_space_prefix,
)
from thriftbit.sources.tokenizers.vocabulary import AddedToken, Vocabulary

OTHER_MODELS = {
    "Unigram": "a Unigram tokenizer (SentencePiece's other kind, as in T5)",
    "WordPiece": "a WordPiece tokenizer (as in BERT)",
    "WordLevel": "a WordLevel tokenizer",
}


_MOST_TOKENS, _MOST_MERGES = 1 << 20, 1 << 21  # Gemma 3 has 262,144 and 514,906


@dataclass(frozen=True)
class BytePairTokenizer:
    """The content of a tokenizer.json.

    tokens: text to id, without added tokens that are not in the model's own vocabulary. merges: in the order of their
    rank. byte_fallback: whether characters without a token become <0x..> tokens, as in SentencePiece; if not, tokens
    are spelled in the byte alphabet of GPT-2. space_prefix: whether a space is put before the text; None if the
    pre-tokenizer alone decides. normalizer, pre_tokenizer, post_processor: as in the file."""

    path: Path
    tokens: dict[str, int]
    merges: list[tuple[str, str]]
    unknown: str | None
    byte_fallback: bool
    ignore_merges: bool
    normalizer: Any
    pre_tokenizer: Any
    post_processor: Any
    space_prefix: bool | None = None


def parse_tokenizer_json(content: dict[str, Any], path: Path) -> BytePairTokenizer:
    model = content.get("model")
    if not isinstance(model, dict):
        raise ThriftbitError(f"{path} has no model: it is not a tokenizer")
    kind = model.get("type", "BPE" if "merges" in model else None)  # old files do not name it
    if kind != "BPE":
        named = OTHER_MODELS.get(str(kind), f"a tokenizer of the unknown kind {shown(kind)}")
        raise ThriftbitError(
            f"{path} is {named}; only BPE is supported. Convert this model to GGUF with llama.cpp's "
            "convert_hf_to_gguf.py and give the GGUF as the model"
        )
    for option in ("continuing_subword_prefix", "end_of_word_suffix", "dropout"):
        if model.get(option):
            raise ThriftbitError(f"{path} uses {option} ({shown(model[option])}), which llama.cpp does not have")
    tokens = model.get("vocab")
    if not isinstance(tokens, dict) or not tokens:
        raise ThriftbitError(f"{path} has no vocabulary")
    if len(tokens) > _MOST_TOKENS:
        raise ThriftbitError(f"{path} has {len(tokens):,} tokens, more than any real model")
    return BytePairTokenizer(
        path=path,
        tokens=tokens,
        merges=_merges(model.get("merges"), tokens, path),
        unknown=model.get("unk_token"),
        byte_fallback=bool(model.get("byte_fallback")),
        ignore_merges=bool(model.get("ignore_merges")),
        normalizer=content.get("normalizer"),
        pre_tokenizer=content.get("pre_tokenizer"),
        post_processor=content.get("post_processor"),
    )


def _merges(entries: Any, tokens: dict[str, Any], path: Path) -> list[tuple[str, str]]:
    if not isinstance(entries, list):
        raise ThriftbitError(f"{path} has no merges")
    if len(entries) > _MOST_MERGES:
        raise ThriftbitError(f"{path} has {len(entries):,} merges, more than any real model")
    merges = [_merge(entry, path) for entry in entries]
    for left, right in merges:
        for part in (left, right, left + right):
            if part not in tokens:
                raise ThriftbitError(
                    f"{path}: the merge of {shown(left)} and {shown(right)} needs {shown(part)}, which is not a token"
                )
    if len(set(merges)) != len(merges):
        raise ThriftbitError(f"{path} lists the same merge twice")
    return merges


def _merge(entry: Any, path: Path) -> tuple[str, str]:
    """Return the two tokens of a merge. Old files write "a b", new files ["a", "b"]."""
    match entry.split(" ") if isinstance(entry, str) else entry:
        case [str(left), str(right)] if left and right:
            return left, right
    raise ThriftbitError(f"{path}: {shown(entry)} is not a merge of two tokens")


def byte_pair_metadata(
    tokenizer: BytePairTokenizer, added: Iterable[AddedToken], vocabulary: Vocabulary, model_type: str
) -> dict[str, MetadataValue]:
    """Return the keys of model, pre-tokenizer, tokens, types and merges. Fills `vocabulary`."""
    for step in flat_steps(tokenizer.normalizer, "normalizers"):
        if step != {"type": "NFC"}:
            raise ThriftbitError(f"{tokenizer.path} normalizes text in a way that llama.cpp cannot: {shown(step)}")
    if tokenizer.space_prefix:
        raise space_prefix_refused(tokenizer.path.with_name("tokenizer_config.json"))
    structure = (
        without_space_prefix(tokenizer.pre_tokenizer) if tokenizer.space_prefix is False else tokenizer.pre_tokenizer
    )
    name = pre_tokenizer_name(structure, tokenizer.ignore_merges, model_type, tokenizer.path)
    for text, token_id in tokenizer.tokens.items():
        vocabulary.place(token_id, text, gguf.TokenType.NORMAL)
    for token in added:
        vocabulary.place_added(token, token.text, replaced=token.text)
    for left, right in tokenizer.merges:
        if " " in left or " " in right:  # GGUF separates the two by a space; the byte alphabet has none
            raise ThriftbitError(f"{tokenizer.path}: the merge of {shown(left)} and {shown(right)} contains a space")
    keys = gguf.Keys.Tokenizer
    return {
        keys.MODEL: "gpt2",
        keys.PRE: name,
        **vocabulary.metadata(scores=False),
        keys.MERGES: [f"{left} {right}" for left, right in tokenizer.merges],
    }
