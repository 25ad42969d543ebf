"""llama.cpp treats a model by its name: what Phi-3's tokenizer needs, and what must not happen to others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tokenizers

from thriftbit.sources.checkpoint import Checkpoint
from thriftbit.sources.tokenizers import tokenizer_metadata

from .llama_cpp_vocabulary import Vocabulary
from .test_tokenizers import (
    LINES,
    LLAMA_2,
    PADDING_ROWS,
    as_tokenizer_json,
    assert_same_ids,
    pre_tokenizer_named,
    train_byte_level,
    train_sentencepiece,
)


def phi3_folder(folder: Path) -> None:
    """A SentencePiece tokenizer whose chat marks swallow the white space after them, as Phi-3's do"""
    model = train_sentencepiece(folder, space_prefix=True)
    (folder / "tokenizer.model").unlink()
    source = tokenizers.Tokenizer.from_str(json.dumps(as_tokenizer_json(model, LLAMA_2)))
    source.add_special_tokens(["<|endoftext|>"])
    marks = ["</s>", "<tool>", "<|user|>", "<|assistant|>", "<|end|>"]
    source.add_special_tokens([tokenizers.AddedToken(mark, rstrip=True, normalized=False) for mark in marks])
    content = json.loads(source.to_str())
    for token in content["added_tokens"]:
        token["rstrip"] = token["content"] in marks
    (folder / "tokenizer.json").write_text(json.dumps(content))
    (folder / "tokenizer_config.json").write_text('{"eos_token": "</s>", "bos_token": "<s>", "add_bos_token": false}')


@pytest.mark.parametrize("name", ["Phi 3 Mini 4k Instruct", "Samantha"])
def test_white_space_after_chat_marks_as_phi_3_has_it(tmp_path: Path, name: str) -> None:
    phi3_folder(tmp_path)
    source = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    told: list[str] = []
    checkpoint = Checkpoint(tmp_path, {"model_type": "phi3"}, {})
    metadata = tokenizer_metadata(checkpoint, source.get_vocab_size() + PADDING_ROWS, name, told.append)
    reader = Vocabulary(tmp_path / "vocabulary.gguf", metadata)
    texts = [f"<|user|>\n{before}<|end|>{after}<|assistant|>\n" for before in LINES[:20] for after in (" \n", "", " a")]
    assert [reader.ids(text) for text in texts] == [source.encode(text).ids for text in texts]
    assert told == []


@pytest.mark.parametrize("name", ["phi3-distill-demo", "Phi-3 for ever", "modern-bert"])
def test_a_name_that_llama_cpp_would_not_load(tmp_path: Path, name: str) -> None:
    """Where a name contains phi3, llama.cpp looks tokens up that most vocabularies lack, and gives up."""
    train_byte_level(tmp_path, pre_tokenizer_named("gpt-2"))
    source = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    metadata = tokenizer_metadata(Checkpoint(tmp_path, {}, {}), source.get_vocab_size(), name)
    assert_same_ids(tmp_path, Vocabulary(tmp_path / "vocabulary.gguf", metadata), LINES[:100])


# Real tokenizers
