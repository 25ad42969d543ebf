"""What is added to a text, where a model stops, and chat templates, in llama.cpp's terms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from thriftbit.errors import ThriftbitError

from .tokenizer_folders import BYTE_LEVEL, END, JSON, added, byte_level, convert, notes


def template(*items: str) -> JSON:
    """Return a post-processor; "A" stands for the text."""
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
