"""What tokenizer_metadata writes, case by case; whether llama.cpp then agrees is for the conformance tests."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import TokenType

from thriftbit.containers.gguf_values import MetadataValue
from thriftbit.errors import ThriftbitError
from thriftbit.sources.checkpoint import Checkpoint
from thriftbit.sources.tokenizers import tokenizer_metadata
from thriftbit.sources.tokenizers.pre_tokenizers import LLAMA3

JSON = dict[str, Any]

BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}


def added(token_id: int, text: str, *, special: bool = True) -> JSON:
    return {"id": token_id, "content": text, "special": special}


def byte_level(**changes: Any) -> JSON:
    """-> a tokenizer.json of five tokens, two of them added"""
    return {
        "added_tokens": [added(3, "<|end|>"), added(4, "<tool>", special=False)],
        "pre_tokenizer": BYTE_LEVEL,
        "post_processor": BYTE_LEVEL,
        "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [["a", "b"]]},
    } | changes


def pieces_json(**changes: Any) -> JSON:
    """-> a tokenizer.json in SentencePiece's manner: <unk> <s> </s>, 256 bytes, a b c ab abc"""
    letters = ["a", "b", "c", "ab", "abc"]
    vocabulary = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *letters]
    return {
        "added_tokens": [added(0, "<unk>"), added(1, "<s>"), added(2, "</s>")],
        "normalizer": {"type": "Prepend", "prepend": "▁"},
        "model": {
            "type": "BPE",
            "byte_fallback": True,
            "unk_token": "<unk>",
            "vocab": {text: row for row, text in enumerate(vocabulary)},
            "merges": [["a", "b"], ["ab", "c"]],
        },
    } | changes


def convert(folder: Path, rows: int, config: JSON | None = None, **files: JSON | str | bytes) -> dict[str, Any]:
    """files: by name without its extension; JSON unless given as text (.jinja) or bytes (.model)"""
    for name, content in files.items():
        if isinstance(content, bytes):
            (folder / f"{name}.model").write_bytes(content)
        elif isinstance(content, str):
            (folder / f"{name}.jinja").write_text(content)
        else:
            (folder / f"{name}.json").write_text(json.dumps(content))
    metadata: dict[str, MetadataValue] = tokenizer_metadata(Checkpoint(folder, config or {}, {}), rows)
    return metadata


def notes(folder: Path, rows: int, config: JSON | None = None, name: str = "") -> tuple[dict[str, Any], list[str]]:
    """-> what is written for the files that are in the folder already, and what is told"""
    told: list[str] = []
    metadata = tokenizer_metadata(Checkpoint(folder, config or {}, {}), rows, name, told.append)
    return metadata, told


END = {"eos_token": "<|end|>"}


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
    """-> Phi-3's added tokens, which swallow the white space after them; changes: another `rstrip` for a token"""
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
    """-> one field of a protobuf message"""
    if isinstance(value, float):
        return variable_width(number << 3 | 5) + struct.pack("<f", value)
    if isinstance(value, int):
        return variable_width(number << 3) + variable_width(value)
    return variable_width(number << 3 | 2) + variable_width(len(value)) + value


def variable_width(number: int) -> bytes:
    """-> a number, seven bits to a byte"""
    return bytes([number]) if number < 128 else bytes([number & 127 | 128]) + variable_width(number >> 7)


def model_file(trainer: bytes = b"", normalizer: bytes = b"") -> bytes:
    """-> a tokenizer.model with <unk> <s> </s>, 256 bytes and a user-defined ▁▁"""
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


def template(*items: str) -> JSON:
    """-> a post-processor; "A" stands for the text"""
    single = [{"Sequence" if item == "A" else "SpecialToken": {"id": item, "type_id": 0}} for item in items]
    return {"type": "Sequence", "processors": [BYTE_LEVEL, {"type": "TemplateProcessing", "single": single}]}


def with_ends(**changes: Any) -> JSON:
    tokens = [added(3, "<|begin|>"), added(4, "<|end|>")]
    return byte_level(added_tokens=tokens, **changes)


def ends(metadata: dict[str, Any]) -> tuple[bool, bool]:
    return metadata["tokenizer.ggml.add_bos_token"], metadata["tokenizer.ggml.add_eos_token"]


@pytest.mark.parametrize(
    ("post_processor", "config", "expected"),
    [
        (template("<|begin|>", "A"), {}, (True, False)),
        (template("<|begin|>", "A"), {"add_bos_token": False}, (True, False)),
        (template("<|begin|>", "A", "<|end|>"), {}, (True, True)),
        (template("A"), {"add_bos_token": True}, (False, False)),
        (BYTE_LEVEL, {"add_bos_token": True}, (False, False)),
        (None, {"add_bos_token": True, "add_eos_token": True}, (True, True)),
        (None, {}, (False, False)),
    ],
)
def test_what_is_added_to_a_text(
    tmp_path: Path, post_processor: JSON | None, config: JSON, expected: tuple[bool, bool]
) -> None:
    """The post-processor decides where there is one, as transformers does it"""
    named = {"bos_token": "<|begin|>", "eos_token": {"content": "<|end|>", "special": True}}
    content = with_ends(post_processor=post_processor)
    metadata = convert(tmp_path, 5, tokenizer=content, tokenizer_config=named | config)
    assert ends(metadata) == expected
    assert metadata["tokenizer.ggml.bos_token_id"] == 3
    assert metadata["tokenizer.ggml.eos_token_id"] == 4


def test_the_template_names_the_beginning_if_no_file_does(tmp_path: Path) -> None:
    content = with_ends(post_processor=template("<|begin|>", "A"))
    metadata = convert(tmp_path, 5, tokenizer=content, tokenizer_config=END)
    assert metadata["tokenizer.ggml.bos_token_id"] == 3


@pytest.mark.parametrize("post_processor", [template("<|begin|>", "<|end|>", "A"), template("<|end|>", "A")])
def test_a_template_beyond_llama_cpp_is_refused(tmp_path: Path, post_processor: JSON) -> None:
    named = {"bos_token": "<|begin|>", "eos_token": "<|end|>"}
    with pytest.raises(ThriftbitError, match=r"llama\.cpp can add"):
        convert(tmp_path, 5, tokenizer=with_ends(post_processor=post_processor), tokenizer_config=named)


def test_qwen_gets_no_beginning_token(tmp_path: Path) -> None:
    named = {"bos_token": None, "eos_token": "<|end|>", "add_bos_token": False}
    metadata = convert(tmp_path, 5, {"bos_token_id": 3}, tokenizer=with_ends(), tokenizer_config=named)
    assert ends(metadata) == (False, False)


def test_an_unusual_stop_token_becomes_the_end_of_turn(tmp_path: Path) -> None:
    stops = {"eos_token_id": [3, 4]}
    metadata = convert(tmp_path, 5, tokenizer=byte_level(), tokenizer_config=END, generation_config=stops)
    assert metadata["tokenizer.ggml.eot_token_id"] == 4


def test_a_second_unusual_stop_token_becomes_the_end_of_message_and_a_third_is_told(tmp_path: Path) -> None:
    tokens = [added(3, "<|end|>"), *(added(row, f"<stop {row}>") for row in range(4, 8))]
    stops = {"eos_token_id": [3, 4, 5, 6]}
    content = byte_level(added_tokens=tokens)
    metadata = convert(tmp_path, 8, tokenizer=content, tokenizer_config=END, generation_config=stops)
    assert metadata["tokenizer.ggml.eot_token_id"] == 4
    assert metadata["tokenizer.ggml.eom_token_id"] == 5
    _, told = notes(tmp_path, 8)
    assert len(told) == 1
    assert "stops at '<stop 6>' too" in told[0]


def test_a_stop_that_llama_cpp_recognises_takes_no_place_of_another(tmp_path: Path) -> None:
    tokens = [added(3, "<|end|>"), *(added(row, text) for row, text in enumerate(("[EOT]", "<turn|>", "<mine>"), 4))]
    stops = {"eos_token_id": [3, 4, 5, 6]}
    content = byte_level(added_tokens=tokens)
    metadata = convert(tmp_path, 8, tokenizer=content, tokenizer_config=END, generation_config=stops)
    assert metadata["tokenizer.ggml.eot_token_id"] == 6
    assert "tokenizer.ggml.eom_token_id" not in metadata


def test_an_end_token_that_only_generation_config_names(tmp_path: Path) -> None:
    metadata = convert(tmp_path, 5, tokenizer=byte_level(), generation_config={"eos_token_id": [3]})
    assert metadata["tokenizer.ggml.eos_token_id"] == 3


def test_without_an_end_token_it_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ThriftbitError, match="eos_token"):
        convert(tmp_path, 5, tokenizer=byte_level())


# Chat templates


def test_chat_template_as_text(tmp_path: Path) -> None:
    metadata = convert(tmp_path, 5, tokenizer=byte_level(), tokenizer_config=END | {"chat_template": "{{ x }}"})
    assert metadata["tokenizer.chat_template"] == "{{ x }}"


@pytest.mark.parametrize("template", ["", "\n", " \t"])
def test_an_empty_chat_template_is_none(tmp_path: Path, template: str) -> None:
    metadata = convert(tmp_path, 5, tokenizer=byte_level(), tokenizer_config=END | {"chat_template": template})
    assert "tokenizer.chat_template" not in metadata
    named = [{"name": "default", "template": template}, {"name": "rag", "template": "R"}]
    metadata = convert(tmp_path, 5, tokenizer=byte_level(), tokenizer_config=END | {"chat_template": named})
    assert "tokenizer.chat_template" not in metadata
    assert metadata["tokenizer.chat_templates"] == ["rag"]


def test_chat_templates_as_an_object(tmp_path: Path) -> None:
    named = {"default": "D", "rag": "R"}
    metadata = convert(tmp_path, 5, tokenizer=byte_level(), tokenizer_config=END | {"chat_template": named})
    assert metadata["tokenizer.chat_template"] == "D"
    assert metadata["tokenizer.chat_template.rag"] == "R"


def test_chat_templates_by_name(tmp_path: Path) -> None:
    named = [{"name": "default", "template": "D"}, {"name": "tool-use", "template": "T"}]
    metadata = convert(tmp_path, 5, tokenizer=byte_level(), tokenizer_config=END | {"chat_template": named})
    assert metadata["tokenizer.chat_template"] == "D"
    assert metadata["tokenizer.chat_template.tool_use"] == "T"
    assert metadata["tokenizer.chat_templates"] == ["tool_use"]


def test_chat_template_files_go_first(tmp_path: Path) -> None:
    (tmp_path / "additional_chat_templates").mkdir()
    (tmp_path / "additional_chat_templates" / "rag.jinja").write_text("R")
    config = END | {"chat_template": "older"}
    metadata = convert(tmp_path, 5, tokenizer=byte_level(), tokenizer_config=config, chat_template="é")
    assert metadata["tokenizer.chat_template"] == "é"
    assert metadata["tokenizer.chat_template.rag"] == "R"


# Folders without a tokenizer of use


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
