"""Byte-level BPE (GPT-2 and nearly everything since): llama.cpp's "gpt2" tokenizer.

Tokens and merges are written as they are, in GPT-2's byte alphabet; added tokens as plain text, because llama.cpp, too,
cuts them out of the text before anything else. llama.cpp does no Unicode normalization: NFC is accepted, since nearly
all text is in that form already, and decomposed text becomes other tokens; any other normalizer is refused.
"""

from __future__ import annotations

from collections.abc import Iterable

import gguf

from thriftbit.containers.gguf_values import MetadataValue
from thriftbit.errors import ThriftbitError, shown
from thriftbit.sources.tokenizers.pre_tokenizers import pre_tokenizer_name
from thriftbit.sources.tokenizers.tokenizer_json import BytePairTokenizer, flat_steps
from thriftbit.sources.tokenizers.vocabulary import AddedToken, Vocabulary


def byte_pair_metadata(
    tokenizer: BytePairTokenizer, added: Iterable[AddedToken], vocabulary: Vocabulary, model_type: str
) -> dict[str, MetadataValue]:
    """-> model, pre-tokenizer, tokens, types and merges; `vocabulary` is filled on the way"""
    for step in flat_steps(tokenizer.normalizer, "normalizers"):
        if step != {"type": "NFC"}:
            raise ThriftbitError(f"{tokenizer.path} normalizes text in a way that llama.cpp cannot: {shown(step)}")
    name = pre_tokenizer_name(tokenizer.pre_tokenizer, tokenizer.ignore_merges, model_type, tokenizer.path)
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
