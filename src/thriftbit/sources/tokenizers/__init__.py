"""A model folder's tokenizer in GGUF's terms.

llama.cpp has tokenizers of its own, so a GGUF says which one to use and with what vocabulary. This room finds the
description that makes llama.cpp give the same ids as the source tokenizer, and refuses what it has no such description
for; `tests/conformance/test_tokenizers.py` holds the two side by side. The files themselves are read with json and a
page of protobuf: no tokenizer library is needed to convert a model.

Byte-level BPE comes from tokenizer.json. SentencePiece BPE comes from tokenizer.model, whose scores are exact, or from
tokenizer.json alone. Left out: Unigram, WordPiece, and the tiktoken and tekken files of models that have no
tokenizer.json.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from thriftbit.containers.gguf_values import MetadataValue
from thriftbit.errors import ThriftbitError
from thriftbit.sources.tokenizers.byte_pair import BytePairTokenizer, byte_pair_metadata, parse_tokenizer_json
from thriftbit.sources.tokenizers.chat_template import chat_template_metadata
from thriftbit.sources.tokenizers.folder import TOKENIZER_JSON, TokenizerFolder, open_tokenizer_folder
from thriftbit.sources.tokenizers.sentencepiece import (
    SentencePieceTokenizer,
    from_tokenizer_json,
    read_sentencepiece_model,
    sentencepiece_metadata,
    space_prefix,
)
from thriftbit.sources.tokenizers.special_tokens import special_token_metadata
from thriftbit.sources.tokenizers.vocabulary import Vocabulary

if TYPE_CHECKING:
    from thriftbit.sources.checkpoint import Checkpoint

__all__ = ["tokenizer_metadata"]

FOREIGN_FILES = {
    "tekken.json": "Mistral's tekken format",
    "tiktoken.model": "a tiktoken file",
    "qwen.tiktoken": "a tiktoken file",
    "vocab.json": "the older vocab.json and merges.txt",
    "spiece.model": "T5's Unigram tokenizer",
    "vocab.txt": "BERT's WordPiece tokenizer",
}


def tokenizer_metadata(checkpoint: Checkpoint, vocabulary_size: int) -> dict[str, MetadataValue]:
    """-> every tokenizer.* key of the GGUF, chat template included.

    vocabulary_size: rows of the embedding; rows without a token are filled with unused ones. Raises ThriftbitError,
    naming the file, if there is no tokenizer, if it is damaged, or if llama.cpp could not follow it.
    """
    folder = open_tokenizer_folder(checkpoint)
    vocabulary = Vocabulary(folder.origin, vocabulary_size)
    byte_pair = _byte_pair(folder)
    if byte_pair is not None and not byte_pair.byte_fallback:
        model_type = str(folder.model_config.get("model_type"))
        metadata = byte_pair_metadata(byte_pair, folder.added_tokens(), vocabulary, model_type)
    else:
        pieces = _sentencepiece(folder, byte_pair)
        metadata = sentencepiece_metadata(pieces, folder.added_tokens(), vocabulary)
    begins_by_custom = byte_pair is None or byte_pair.byte_fallback
    metadata |= special_token_metadata(folder, vocabulary.ids(), begins_by_custom)
    return metadata | chat_template_metadata(folder)


def _byte_pair(folder: TokenizerFolder) -> BytePairTokenizer | None:
    if folder.tokenizer_json is None:
        return None
    return parse_tokenizer_json(folder.tokenizer_json, folder.path / TOKENIZER_JSON)


def _sentencepiece(folder: TokenizerFolder, byte_pair: BytePairTokenizer | None) -> SentencePieceTokenizer:
    """tokenizer.model where there is one, because its scores are the original ones; with a tokenizer.json beside it,
    that one decides about the space before the text, as it does in transformers."""
    if folder.sentencepiece_model is None:
        if byte_pair is None:
            raise _no_tokenizer(folder)
        return from_tokenizer_json(byte_pair)
    model = read_sentencepiece_model(folder.sentencepiece_model)
    if byte_pair is None:
        return model
    return SentencePieceTokenizer(model.origin, model.pieces, space_prefix(byte_pair))


def _no_tokenizer(folder: TokenizerFolder) -> ThriftbitError:
    for name, what in FOREIGN_FILES.items():
        if (folder.path / name).exists():
            return ThriftbitError(
                f"{folder.path} has its tokenizer only as {what} ({name}). Save it as tokenizer.json beside it: "
                "transformers' AutoTokenizer.from_pretrained(...).save_pretrained(...)"
            )
    return ThriftbitError(f"{folder.path} has no tokenizer: neither tokenizer.json nor tokenizer.model")
