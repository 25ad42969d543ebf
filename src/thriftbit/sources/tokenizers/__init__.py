"""A model folder's tokenizer in GGUF's terms.

llama.cpp has tokenizers of its own, so a GGUF says which one to use, and with what vocabulary. This room finds the
description with which llama.cpp gives the same ids as the source's tokenizer. It refuses a tokenizer for which there is
none. `tests/conformance/test_tokenizers.py` compares the two. The files are read with json and a small protobuf reader,
so converting a model needs no tokenizer library.

Byte-level BPE comes from tokenizer.json. SentencePiece BPE comes from tokenizer.model, whose scores are exact, or from
tokenizer.json alone. Left out: Unigram, WordPiece, and the tiktoken and tekken files of models that have no
tokenizer.json.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from thriftbit.containers.gguf_values import MetadataValue
from thriftbit.errors import ThriftbitError, enumeration, shown
from thriftbit.sources.tokenizers.added_tokens import name_for_llama_cpp, space_note
from thriftbit.sources.tokenizers.byte_pair import BytePairTokenizer, byte_pair_metadata, parse_tokenizer_json
from thriftbit.sources.tokenizers.chat_template import chat_template_metadata
from thriftbit.sources.tokenizers.folder import TOKENIZER_JSON, TokenizerFolder, open_tokenizer_folder
from thriftbit.sources.tokenizers.sentencepiece import (
    SentencePieceTokenizer,
    from_tokenizer_json,
    merged_metadata,
    read_sentencepiece_model,
    sentencepiece_metadata,
    space_prefix,
)
from thriftbit.sources.tokenizers.special_tokens import special_token_metadata
from thriftbit.sources.tokenizers.vocabulary import Vocabulary

if TYPE_CHECKING:
    from thriftbit.sources.checkpoint import Checkpoint

_logger = logging.getLogger(__name__)

__all__ = ["tokenizer_metadata"]

FOREIGN_FILES = {
    "tekken.json": "Mistral's tekken format",
    "tiktoken.model": "a tiktoken file",
    "qwen.tiktoken": "a tiktoken file",
    "vocab.json": "the older vocab.json and merges.txt",
    "spiece.model": "T5's Unigram tokenizer",
    "vocab.txt": "BERT's WordPiece tokenizer",
}

# Model types whose tokenizer.json transformers 5 takes as it is, whatever class tokenizer_config.json names
GENERIC_TOKENIZERS = frozenset(("mistral", "mixtral", "phi3", "phimoe", "internlm3", "nemotron"))
# Tokenizer classes that take the treatment of spaces from tokenizer_config.json, not from tokenizer.json
CLASSES_WITH_PREFIX = frozenset(("GPT2Tokenizer", "GPTNeoXTokenizer", "Qwen2Tokenizer"))
MERGED = "gemma4"  # the model type that has SentencePiece's spelling together with a list of merges
NAME = "general.name"


def tokenizer_metadata(
    checkpoint: Checkpoint, vocabulary_size: int, name: str = "", note: Callable[[str], None] = _logger.info
) -> dict[str, MetadataValue]:
    """Return every tokenizer.* key of the GGUF, chat template included. If a name is given, general.name is returned
    too, spelled so that llama.cpp reads the tokenizer best.

    vocabulary_size: rows of the embedding; rows without a token get unused tokens. note: is called with sentences on
    what llama.cpp reads otherwise than the original. Raises ThriftbitError, naming the file, if there is no tokenizer,
    if it is damaged, or if llama.cpp could not follow it."""
    folder = open_tokenizer_folder(checkpoint)
    vocabulary, added = Vocabulary(folder.origin, vocabulary_size), folder.added_tokens()
    byte_pair = _byte_pair(folder)
    if byte_pair is not None and not byte_pair.byte_fallback:
        model_type = str(folder.model_config.get("model_type"))
        metadata = byte_pair_metadata(byte_pair, added, vocabulary, model_type)
    elif byte_pair is not None and str(folder.model_config.get("model_type")).startswith(MERGED):
        metadata = merged_metadata(byte_pair, added, vocabulary)
    else:
        pieces = _with_stated_prefix(folder, _sentencepiece(folder, byte_pair))
        metadata = sentencepiece_metadata(pieces, added, vocabulary)
    if vocabulary.left_out:
        texts = enumeration([shown(token.text) for token in vocabulary.left_out])
        note(f"Note: Added tokens left out, since the model's embedding has no rows for them: {texts}.")
    begins_by_custom = byte_pair is None or byte_pair.byte_fallback
    metadata |= special_token_metadata(folder, vocabulary.ids(), begins_by_custom, note)
    written, differing = name_for_llama_cpp(name, added, vocabulary.ids(), vocabulary.special())
    if differing:
        note(space_note(differing))
    return metadata | ({NAME: written} if name else {}) | chat_template_metadata(folder)


def _byte_pair(folder: TokenizerFolder) -> BytePairTokenizer | None:
    if folder.tokenizer_json is None:
        return None
    tokenizer = parse_tokenizer_json(folder.tokenizer_json, folder.path / TOKENIZER_JSON)
    if folder.tokenizer_class not in CLASSES_WITH_PREFIX:
        return tokenizer
    return replace(tokenizer, space_prefix=bool(folder.tokenizer_config.get("add_prefix_space")))


def _sentencepiece(folder: TokenizerFolder, byte_pair: BytePairTokenizer | None) -> SentencePieceTokenizer:
    """Return the tokenizer of tokenizer.model if there is one, because its scores are the original ones. A
    tokenizer.json beside it decides about the space before the text, as in transformers."""
    if folder.sentencepiece_model is None:
        if byte_pair is None:
            raise _no_tokenizer(folder)
        return from_tokenizer_json(byte_pair)
    model = read_sentencepiece_model(folder.sentencepiece_model)
    if byte_pair is None:
        return model
    return replace(model, space_prefix=space_prefix(byte_pair))


def _with_stated_prefix(folder: TokenizerFolder, tokenizer: SentencePieceTokenizer) -> SentencePieceTokenizer:
    """Return the tokenizer with `add_prefix_space` of tokenizer_config.json, which overrides the vocabulary's file.
    This holds for the tokenizer class with this setting, and for the families that transformers builds with that
    class."""
    stated = folder.tokenizer_config.get("add_prefix_space")
    file_decides = folder.tokenizer_json is not None and folder.model_config.get("model_type") in GENERIC_TOKENIZERS
    if not isinstance(stated, bool) or folder.tokenizer_class != "LlamaTokenizer" or file_decides:
        return tokenizer
    return replace(tokenizer, space_prefix=stated)


def _no_tokenizer(folder: TokenizerFolder) -> ThriftbitError:
    for name, what in FOREIGN_FILES.items():
        if (folder.path / name).exists():
            return ThriftbitError(
                f"{folder.path} has its tokenizer only as {what} ({name}). Save it as tokenizer.json beside it: "
                "transformers' AutoTokenizer.from_pretrained(...).save_pretrained(...)"
            )
    return ThriftbitError(f"{folder.path} has no tokenizer: neither tokenizer.json nor tokenizer.model")
