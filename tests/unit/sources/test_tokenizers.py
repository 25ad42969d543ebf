"""What tokenizer_metadata writes, case by case; whether llama.cpp then agrees is for the conformance tests."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from gguf import TokenType

from thriftbit.errors import ThriftbitError
from thriftbit.sources.tokenizers.pre_tokenizers import LLAMA3

from .tokenizer_folders import BYTE_LEVEL, END, JSON, added, byte_level, convert, notes, pieces_json


def test_byte_level_bpe(tmp_path: Path) -> None:
    metadata = convert(tmp_path, 7, tokenizer=byte_level(), tokenizer_config=END)
    types = metadata.pop("tokenizer.ggml.token_type")
    assert types.dtype == np.int32
    assert [TokenType(kind).name for kind in types] == [
        *["NORMAL"] * 3, "CONTROL", "USER_DEFINED", "UNUSED", "UNUSED"
    ]  # fmt: skip
    assert metadata == {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": ["a", "b", "ab", "<|end|>", "<tool>", "[PAD5]", "[PAD6]"],
        "tokenizer.ggml.merges": ["a b"],
        "tokenizer.ggml.eos_token_id": np.uint32(3),
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.ggml.add_eos_token": False,
    }


def test_merges_as_strings(tmp_path: Path) -> None:
    model = byte_level()["model"] | {"merges": ["a b"]}
    metadata = convert(tmp_path, 5, tokenizer=byte_level(model=model), tokenizer_config=END)
    assert metadata["tokenizer.ggml.merges"] == ["a b"]


def test_an_added_token_that_looks_special_is_a_control_token(tmp_path: Path) -> None:
    tokens = [added(3, "<|end|>"), added(4, "<|fim|>", special=False)]
    metadata = convert(tmp_path, 5, tokenizer=byte_level(added_tokens=tokens), tokenizer_config=END)
    assert metadata["tokenizer.ggml.token_type"][4] == TokenType.CONTROL


def test_added_tokens_of_the_other_files(tmp_path: Path) -> None:
    decoder = {"5": {"content": "<x>", "special": True}, "4": {"content": "<tool>", "special": True}}
    config = END | {"added_tokens_decoder": decoder}
    metadata = convert(tmp_path, 7, tokenizer=byte_level(), tokenizer_config=config, added_tokens={"<y>": 6})
    assert metadata["tokenizer.ggml.tokens"][5:] == ["<x>", "<y>"]
    kinds = [TokenType.CONTROL, TokenType.CONTROL, TokenType.USER_DEFINED]
    assert metadata["tokenizer.ggml.token_type"][4:].tolist() == kinds


def test_an_added_tokens_json_that_contradicts_tokenizer_json_counts_for_nothing(tmp_path: Path) -> None:
    stale = {"<|end|>": 4, "<tool>": 3, "[PAD]": 5}
    metadata = convert(tmp_path, 6, tokenizer=byte_level(), tokenizer_config=END, added_tokens=stale)
    assert metadata["tokenizer.ggml.tokens"][3:] == ["<|end|>", "<tool>", "[PAD]"]


# Tokens that swallow white space, and the names by which llama.cpp decides about it

PHI3 = ["<unk>", "<s>", "</s>", "<|endoftext|>", "<|user|>", "<|end|>"]


def phi3_tokens(**changes: bool) -> list[JSON]:
    """Return Phi-3's added tokens, which swallow the white space after them; changes: another `rstrip` for a token."""
    plain = ("<unk>", "<s>", "<|endoftext|>")
    return [added(row, text) | {"rstrip": changes.get(text, text not in plain)} for row, text in enumerate(PHI3, 3)]


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("Phi 3 Mini 4k Instruct", "Phi-3 Mini 4k Instruct"),
        ("Phi-3-mini", "Phi-3-mini"),
        ("Samantha Phi3", "Samantha Phi-3"),
        ("Phi 3.5 Mini", "Phi-3.5 Mini"),
        ("Samantha", "Samantha (Phi-3)"),
    ],
)
def test_a_tokenizer_that_swallows_white_space_as_phi_3_does(tmp_path: Path, name: str, written: str) -> None:
    convert(tmp_path, 9, tokenizer=byte_level(added_tokens=phi3_tokens()), tokenizer_config=END)
    metadata, told = notes(tmp_path, 9, name=name)
    assert metadata["general.name"] == written
    assert told == []


def test_a_token_that_phi_3_has_otherwise_is_told(tmp_path: Path) -> None:
    tokens = phi3_tokens(**{"<|user|>": False})
    convert(tmp_path, 9, tokenizer=byte_level(added_tokens=tokens), tokenizer_config=END)
    metadata, told = notes(tmp_path, 9, name="Phi 3 Mini")
    assert metadata["general.name"] == "Phi-3 Mini"
    assert told == [
        "Note: The original keeps the white space after '<|user|>'. llama.cpp does not, so it reads texts with these "
        "differently."
    ]


@pytest.mark.parametrize("name", ["phi3-distill", "My-Phi-3-clone", "modern-bert-chat"])
def test_a_name_that_would_switch_llama_cpp_is_spelled_otherwise(tmp_path: Path, name: str) -> None:
    convert(tmp_path, 5, tokenizer=byte_level(), tokenizer_config=END)
    metadata, told = notes(tmp_path, 5, name=name)
    assert not any(switch in str(metadata["general.name"]).lower() for switch in ("phi3", "phi-3", "modern-bert"))
    assert told == []


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("lstrip", "drops the white space next to"),
        ("rstrip", "drops the white space next to"),
        ("single_word", "finds only between other words"),
    ],
)
def test_added_tokens_that_llama_cpp_reads_otherwise_are_told(tmp_path: Path, flag: str, words: str) -> None:
    tokens = [added(3, "<|end|>"), added(4, "<tool>", special=False) | {flag: True}]
    convert(tmp_path, 5, tokenizer=byte_level(added_tokens=tokens), tokenizer_config=END)
    _, told = notes(tmp_path, 5, name="Model")
    assert len(told) == 1
    assert "'<tool>'" in told[0]
    assert words in told[0]
    decoder = {"4": {"content": "<tool>"}}  # tokenizer_config.json has the last word, as in transformers
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(END | {"added_tokens_decoder": decoder}))
    assert notes(tmp_path, 5, name="Model")[1] == []


# Spaces before the text


@pytest.mark.parametrize("tokenizer_class", ["GPT2Tokenizer", "Qwen2TokenizerFast", "GPTNeoXTokenizerFast"])
def test_the_tokenizer_class_decides_about_a_space_before_the_text(tmp_path: Path, tokenizer_class: str) -> None:
    structure = {"type": "Sequence", "pretokenizers": [BYTE_LEVEL | {"add_prefix_space": True}]}
    content, config = byte_level(pre_tokenizer=structure), END | {"tokenizer_class": tokenizer_class}
    assert convert(tmp_path, 5, tokenizer=content, tokenizer_config=config)["tokenizer.ggml.pre"] == "gpt-2"
    with pytest.raises(ThriftbitError, match=r"tokenizer_config\.json puts a space before every text"):
        convert(tmp_path, 5, tokenizer=byte_level(), tokenizer_config=config | {"add_prefix_space": True})
    generic = config | {"tokenizer_class": "PreTrainedTokenizerFast", "add_prefix_space": False}
    with pytest.raises(ThriftbitError, match=r"tokenizer\.json puts a space before every text"):
        convert(tmp_path, 5, tokenizer=content, tokenizer_config=generic)


@pytest.mark.parametrize(
    ("tokenizer_class", "model_type", "stated", "expected"),
    [
        ("LlamaTokenizer", "llama", False, False),
        ("LlamaTokenizerFast", "llama", False, False),
        ("LlamaTokenizerFast", "llama", True, True),
        ("LlamaTokenizerFast", "llama", None, True),
        ("LlamaTokenizerFast", "mistral", False, True),
        ("PreTrainedTokenizerFast", "llama", False, True),
    ],
)
def test_add_prefix_space_of_a_llama_tokenizer(
    tmp_path: Path, tokenizer_class: str, model_type: str, stated: bool | None, expected: bool
) -> None:
    config = {"eos_token": "</s>", "tokenizer_class": tokenizer_class, "add_prefix_space": stated}
    metadata = convert(tmp_path, 265, {"model_type": model_type}, tokenizer=pieces_json(), tokenizer_config=config)
    assert metadata["tokenizer.ggml.add_space_prefix"] is expected


@pytest.mark.parametrize(
    ("structure", "name", "reason"),
    [
        ({"type": "Split", "pattern": {"Regex": "x+"}, "behavior": "Isolated", "invert": False}, "x+", "an expression"),
        ({"type": "Whitespace"}, "Whitespace", "another kind"),
        (BYTE_LEVEL | {"add_prefix_space": True}, "add_prefix_space", "a space before the text"),
        ({"type": "Sequence", "pretokenizers": []}, "not at all", "no step"),
        (None, "not at all", "no structure"),
    ],
)
def test_an_unknown_pre_tokenizer_is_named(tmp_path: Path, structure: JSON | None, name: str, reason: str) -> None:
    with pytest.raises(ThriftbitError, match=r"tokenizer\.json") as raised:
        convert(tmp_path, 5, tokenizer=byte_level(pre_tokenizer=structure), tokenizer_config=END)
    assert name in str(raised.value), reason


def test_the_names_known_are_listed(tmp_path: Path) -> None:
    structure = {"type": "Split", "pattern": {"Regex": "x+"}, "behavior": "Isolated", "invert": False}
    with pytest.raises(ThriftbitError, match=r"gpt-2, .*llama-bpe, .*qwen2"):
        convert(tmp_path, 5, tokenizer=byte_level(pre_tokenizer=structure), tokenizer_config=END)


@pytest.mark.parametrize(
    ("ignore_merges", "model_type", "name"),
    [(True, "llama", "llama-bpe"), (False, "llama", "smaug-bpe"), (False, "olmo2", "dbrx")],
)
def test_one_expression_several_names(tmp_path: Path, ignore_merges: bool, model_type: str, name: str) -> None:
    """Kept matches and removed gaps are isolated matches, line ends may be written out, and the rest decides."""
    regex = LLAMA3.replace(r"\r", "\r").replace(r"\n", "\n")
    structure = {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Removed", "invert": True}
    content = byte_level(pre_tokenizer=structure)
    content["model"]["ignore_merges"] = ignore_merges
    metadata = convert(tmp_path, 5, {"model_type": model_type}, tokenizer=content, tokenizer_config=END)
    assert metadata["tokenizer.ggml.pre"] == name


def test_nfc_is_accepted_and_other_normalizers_are_not(tmp_path: Path) -> None:
    nested = {"type": "Sequence", "normalizers": [{"type": "NFC"}]}
    convert(tmp_path, 5, tokenizer=byte_level(normalizer=nested), tokenizer_config=END)
    with pytest.raises(ThriftbitError, match="Lowercase"):
        convert(tmp_path, 5, tokenizer=byte_level(normalizer={"type": "Lowercase"}))


# SentencePiece


def test_scores_follow_the_merges(tmp_path: Path) -> None:
    metadata = convert(tmp_path, 265, tokenizer=pieces_json(), tokenizer_config={"eos_token": "</s>"})
    assert metadata["tokenizer.ggml.model"] == "llama"
    assert metadata["tokenizer.ggml.tokens"][259:] == ["a", "b", "c", "ab", "abc", "[PAD264]"]
    scores = metadata["tokenizer.ggml.scores"]
    assert scores.dtype == np.float32
    assert scores[262:264].tolist() == [0, -1]
    kinds = [TokenType(kind).name for kind in metadata["tokenizer.ggml.token_type"]]
    assert kinds[:4] == ["UNKNOWN", "CONTROL", "CONTROL", "BYTE"]
    assert kinds[263:] == ["NORMAL", "UNUSED"]
    assert metadata["tokenizer.ggml.add_space_prefix"] is True
    assert metadata["tokenizer.ggml.add_bos_token"] is False  # <s> is not named as the beginning


def test_merges_that_are_not_sentencepieces_are_refused(tmp_path: Path) -> None:
    content = pieces_json()
    content["model"]["vocab"]["bc"] = 264
    with pytest.raises(ThriftbitError, match="'a' and 'bc' join"):
        convert(tmp_path, 265, tokenizer=content, tokenizer_config={"eos_token": "</s>"})


def test_without_byte_tokens_it_is_refused(tmp_path: Path) -> None:
    content = pieces_json()
    del content["model"]["vocab"]["<0x41>"]
    with pytest.raises(ThriftbitError, match="<0x41>"):
        convert(tmp_path, 265, tokenizer=content, tokenizer_config={"eos_token": "</s>"})


def field(number: int, value: int | bytes | float) -> bytes:
    """Return one field of a protobuf message."""
    if isinstance(value, float):
        return variable_width(number << 3 | 5) + struct.pack("<f", value)
    if isinstance(value, int):
        return variable_width(number << 3) + variable_width(value)
    return variable_width(number << 3 | 2) + variable_width(len(value)) + value


def variable_width(number: int) -> bytes:
    """Return a number, seven bits to a byte."""
    return bytes([number]) if number < 128 else bytes([number & 127 | 128]) + variable_width(number >> 7)


def model_file(trainer: bytes = b"", normalizer: bytes = b"") -> bytes:
    """Return a tokenizer.model with <unk> <s> </s>, 256 bytes and a user-defined ▁▁."""
    pieces = [(b"<unk>", 2), (b"<s>", 3), (b"</s>", 3), *((b"<0x%02X>" % byte, 6) for byte in range(256))]
    pieces.append(("▁▁".encode(), 4))
    content = b"".join(field(1, field(1, text) + field(2, -0.5) + field(3, kind)) for text, kind in pieces)
    return content + field(2, field(3, 2) + trainer) + field(3, field(4, 0) + normalizer)


def test_sentencepiece_model(tmp_path: Path) -> None:
    config = {"bos_token_id": 1, "eos_token_id": [2, 5], "pad_token_id": -1}
    metadata = convert(tmp_path, 261, config, tokenizer=model_file(normalizer=field(3, 0)))
    assert metadata["tokenizer.ggml.tokens"][256:] == ["<0xFD>", "<0xFE>", "<0xFF>", "  ", "[PAD260]"]
    assert metadata["tokenizer.ggml.scores"][:259].tolist() == [-0.5] * 259
    assert metadata["tokenizer.ggml.token_type"][257:].tolist() == [6, 6, 4, 5]
    assert metadata["tokenizer.ggml.add_space_prefix"] is False
    assert metadata["tokenizer.ggml.add_bos_token"] is True
    assert metadata["tokenizer.ggml.eos_token_id"] == 2
    assert "tokenizer.ggml.padding_token_id" not in metadata


@pytest.mark.parametrize(
    ("trainer", "normalizer", "reason"),
    [
        (field(3, 1), b"", "Unigram"),
        (field(24, 1), b"", "end of words"),
        (b"", field(2, b"map"), "normalizes"),
        (b"", field(4, 1), "runs of spaces"),
    ],
)
def test_sentencepiece_that_llama_cpp_cannot_follow(
    tmp_path: Path, trainer: bytes, normalizer: bytes, reason: str
) -> None:
    with pytest.raises(ThriftbitError, match=reason):
        convert(tmp_path, 260, {"eos_token_id": 2}, tokenizer=model_file(trainer, normalizer))


def test_a_fine_tune_may_rename_a_reserved_piece_but_no_ordinary_one(tmp_path: Path) -> None:
    model, config = model_file(), {"eos_token_id": 2}
    decoder = {"1": {"content": "<|im_start|>", "special": True}}
    metadata = convert(tmp_path, 260, config, tokenizer=model, tokenizer_config={"added_tokens_decoder": decoder})
    assert metadata["tokenizer.ggml.tokens"][1] == "<|im_start|>"
    decoder = {"70": {"content": "<|im_start|>", "special": True}}
    with pytest.raises(ThriftbitError, match=r"the id 70 is '<0x43>' and '<\|im_start\|>' at once"):
        convert(tmp_path, 260, config, tokenizer=model, tokenizer_config={"added_tokens_decoder": decoder})


# Special tokens


@pytest.mark.parametrize(
    ("name", "what"),
    [("tekken.json", "tekken"), ("tiktoken.model", "tiktoken"), ("vocab.json", "merges.txt"), ("none", "no tokenizer")],
)
def test_the_way_out_is_told(tmp_path: Path, name: str, what: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(ThriftbitError, match=what):
        convert(tmp_path, 5)


@pytest.mark.parametrize("kind", ["Unigram", "WordPiece", "WordLevel", "Quantum"])
def test_other_models_are_refused_by_name(tmp_path: Path, kind: str) -> None:
    with pytest.raises(ThriftbitError, match=kind):
        convert(tmp_path, 5, tokenizer=byte_level(model={"type": kind, "vocab": {}}))


def test_a_vocabulary_larger_than_the_embedding_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ThriftbitError, match="'ab' has the id 2, but the model's embedding has only 2 rows"):
        convert(tmp_path, 2, tokenizer=byte_level(), tokenizer_config=END)
