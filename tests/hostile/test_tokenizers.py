"""Tokenizer files that are damaged, forged or nonsense: always one ThriftbitError that names the file."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from thriftbit.errors import ThriftbitError
from thriftbit.sources.checkpoint import Checkpoint
from thriftbit.sources.open_model import open_model
from thriftbit.sources.tokenizers import tokenizer_metadata

JSON = dict[str, Any]

BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}


def tokenizer_json() -> JSON:
    return {
        "added_tokens": [{"id": 3, "content": "<|end|>", "special": True}],
        "normalizer": None,
        "pre_tokenizer": BYTE_LEVEL,
        "post_processor": BYTE_LEVEL,
        "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [["a", "b"]]},
    }


def convert(folder: Path, content: bytes | JSON, name: str = "tokenizer.json") -> None:
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    (folder / name).write_bytes(data)
    tokenizer_metadata(Checkpoint(folder, {"eos_token_id": 3}, {}), 8)


def test_the_untouched_file_is_fine(tmp_path: Path) -> None:
    convert(tmp_path, tokenizer_json())


def test_every_prefix(tmp_path: Path) -> None:
    data = json.dumps(tokenizer_json()).encode()
    for size in range(len(data)):
        with pytest.raises(ThriftbitError, match=r"tokenizer\.json"):
            convert(tmp_path, data[:size])


@pytest.mark.parametrize("content", [b"\0" * 100, b"[]", b"null", b"{}", b'{"model": []}', b'{"model": {}}', b"\xff"])
def test_no_tokenizer_at_all(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ThriftbitError, match=r"tokenizer\.json"):
        convert(tmp_path, content)


@pytest.mark.parametrize(
    ("where", "value", "reason"),
    [
        (("model", "vocab"), {"a": 0, "b": 1, "ab": 1}, "share the id 1"),
        (("model", "vocab"), {"a": 0, "b": 1, "ab": 8}, "only 8 rows"),
        (("model", "vocab"), {"a": 0, "b": 1, "ab": 1 << 60}, "only 8 rows"),
        (("model", "vocab"), {"a": 0, "b": 1, "ab": 10**30}, "only 8 rows"),
        (("model", "vocab"), {"a": 0, "b": 1, "ab": -1}, "no number"),
        (("model", "vocab"), {"a": 0, "b": 1, "ab": 1.0}, "no number"),
        (("model", "vocab"), {"a": 0, "b": 1, "ab": True}, "no number"),
        (("model", "vocab"), {"a": 0, "b": 1, "ab": 2, "[PAD6]": 5}, "2 ids"),
        (("model", "vocab"), {"a": 0, "b": 1, "ab": 2, "\ud800": 5}, "Unicode"),
        (("model", "vocab"), [["a", 0]], "no vocabulary"),
        (("model", "merges"), [["a", "x"]], "'x', which is not a token"),
        (("model", "merges"), [["b", "a"]], "'ba', which is not a token"),
        (("model", "merges"), [["a", "b"], ["a", "b"]], "same merge twice"),
        (("model", "merges"), ["a b c"], "not a merge"),
        (("model", "merges"), [["a"]], "not a merge"),
        (("model", "merges"), [["a", 1]], "not a merge"),
        (("model", "merges"), [7], "not a merge"),
        (("model", "merges"), None, "no merges"),
        (("added_tokens",), [{"id": -3, "content": "<|end|>"}], "no number"),
        (("added_tokens",), [{"id": 1, "content": "<|end|>"}], "at once"),
        (("added_tokens",), [{"id": 3, "content": "x"}, {"id": 3, "content": "y"}], "at once"),
        (("added_tokens",), [{"id": 3, "content": "x"}, {"id": 4, "content": "x"}], "2 ids"),
        (("added_tokens",), [{"content": "<|end|>"}], "needs an id"),
        (("added_tokens",), [{"id": 3, "content": ""}], "needs an id"),
        (("added_tokens",), [None], "needs an id"),
        (("added_tokens",), "abc", "should be a list"),
        (("normalizer",), {"type": "Sequence", "normalizers": 3}, "normalizes"),
        (("pre_tokenizer",), {"type": "Sequence", "pretokenizers": [None]}, "pre-tokenizer"),
        (("post_processor",), {"type": "TemplateProcessing", "single": [None]}, "template item"),
        (("post_processor",), {"type": "TemplateProcessing", "single": []}, "0 texts"),
        (("post_processor",), {"type": "TemplateProcessing", "single": [{"Sequence": {"id": "B"}}]}, "template item"),
        (("post_processor",), "x", "post_processor"),
    ],
)
def test_forged_content(tmp_path: Path, where: tuple[str, ...], value: Any, reason: str) -> None:
    content = tokenizer_json()
    section = content
    for key in where[:-1]:
        section = section[key]
    section[where[-1]] = value
    with pytest.raises(ThriftbitError, match=r"tokenizer\.json") as raised:
        convert(tmp_path, content)
    assert reason in str(raised.value)


@pytest.mark.parametrize("beyond", [8, 1 << 62])
def test_an_added_token_beyond_the_embedding_is_left_out(tmp_path: Path, beyond: int) -> None:
    """As in a fine-tune whose new padding token got no row; transformers runs such a model."""
    content = tokenizer_json()
    content["added_tokens"].append({"id": beyond, "content": "[PAD]", "special": True})
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    told: list[str] = []
    metadata = tokenizer_metadata(Checkpoint(tmp_path, {"eos_token_id": 3}, {}), 8, note=told.append)
    assert "[PAD]" not in metadata["tokenizer.ggml.tokens"]  # type: ignore[operator]
    assert told == ["Note: Added tokens left out, since the model's embedding has no rows for them: '[PAD]'."]


def test_a_gap_in_the_ids_is_padding(tmp_path: Path) -> None:
    content = tokenizer_json()
    content["added_tokens"][0]["id"] = 5
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    metadata = tokenizer_metadata(Checkpoint(tmp_path, {"eos_token_id": 5}, {}), 6)
    assert metadata["tokenizer.ggml.tokens"] == ["a", "b", "ab", "[PAD3]", "[PAD4]", "<|end|>"]


def test_repeated_keys_and_deep_nesting(tmp_path: Path) -> None:
    repeated = json.dumps(tokenizer_json()).replace('"b": 1', '"b": 1, "b": 1').encode()
    for content in (repeated, b'{"model": ' + b"[" * 100_000):
        with pytest.raises(ThriftbitError, match=r"tokenizer\.json"):
            convert(tmp_path, content)


@pytest.mark.parametrize("depth", [100, 400, 450, 480, 5000])
@pytest.mark.parametrize("part", ["normalizer", "pre_tokenizer", "post_processor"])
def test_sequences_in_sequences(tmp_path: Path, part: str, depth: int) -> None:
    inner = {"normalizer": "normalizers", "pre_tokenizer": "pretokenizers", "post_processor": "processors"}[part]
    nested = f'{{"type": "Sequence", "{inner}": [' * depth + '{"type": "Odd"}' + "]}" * depth
    content = json.dumps(tokenizer_json() | {part: "HERE"}).replace('"HERE"', nested)
    with pytest.raises(ThriftbitError, match=r"tokenizer\.json"):
        convert(tmp_path, content.encode())


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer_config.json", {"added_tokens_decoder": [1]}),
        ("tokenizer_config.json", {"added_tokens_decoder": {"x": {"content": "y"}}}),
        ("tokenizer_config.json", {"added_tokens_decoder": {"9" * 400: {"content": "y"}}}),
        ("tokenizer_config.json", {"added_tokens_decoder": {"3": {"content": "other"}}}),
        ("tokenizer_config.json", {"chat_template": 3}),
        ("tokenizer_config.json", {"chat_template": [{"name": "x"}]}),
        ("tokenizer_config.json", b"{"),
        ("added_tokens.json", {"y": "4"}),
        ("generation_config.json", b"nothing"),
        ("chat_template.jinja", b"\xff\xfe"),
    ],
)
def test_forged_files_beside_it(tmp_path: Path, name: str, content: bytes | JSON) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer_json()))
    with pytest.raises(ThriftbitError, match=name):
        convert(tmp_path, content, name)


def test_half_a_character_in_a_chat_template(tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text('{"chat_template": "\\ud800"}')
    with pytest.raises(ThriftbitError, match="chat template 'default'"):
        convert(tmp_path, tokenizer_json())


def test_odd_values_that_mean_nothing_are_passed_over(tmp_path: Path) -> None:
    config = {"eos_token": 7, "bos_token": {"content": []}, "pad_token": "beyond", "add_bos_token": "yes"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": ["x", 1e9, -1, 77]}')
    convert(tmp_path, tokenizer_json())


@pytest.fixture(scope="module")
def sentencepiece_model() -> bytes:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["hello world"] * 20),
        model_writer=model,
        model_type="bpe",
        vocab_size=280,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        hard_vocab_limit=False,
        num_threads=1,
        minloglevel=2,
    )
    return model.getvalue()


def convert_model(folder: Path, data: bytes) -> None:
    (folder / "tokenizer.model").write_bytes(data)
    tokenizer_metadata(Checkpoint(folder, {"eos_token_id": 2}, {}), 300)


def test_sentencepiece_prefixes(tmp_path: Path, sentencepiece_model: bytes) -> None:
    """A cut between two pieces leaves a shorter list, and no settings: also refused"""
    convert_model(tmp_path, sentencepiece_model)
    settings_start = len(sentencepiece_model) - 400
    for size in [*range(0, settings_start, 7), *range(400)]:
        with pytest.raises(ThriftbitError, match=r"tokenizer\.model"):
            convert_model(tmp_path, sentencepiece_model[:size])


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_sentencepiece_with_flipped_bytes(tmp_path: Path, sentencepiece_model: bytes, data: st.DataObject) -> None:
    forged = bytearray(sentencepiece_model)
    for _ in range(data.draw(st.integers(1, 4))):
        forged[data.draw(st.integers(0, len(forged) - 1))] = data.draw(st.integers(0, 255))
    try:
        convert_model(tmp_path, bytes(forged))
    except ThriftbitError as error:
        assert str(tmp_path) in str(error)


@pytest.mark.parametrize("content", [b"", b"\0", b"\xff" * 50, b"IQ== 0\nIg== 1\n", b"\x0a\xff\xff\xff\xff\x0fx"])
def test_not_sentencepiece(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ThriftbitError, match=r"tokenizer\.model"):
        convert_model(tmp_path, content)


def with_template_elsewhere(model: Path, folder: Path, target: Path) -> Path:
    shutil.copytree(model, folder)
    (folder / "chat_template.jinja").symlink_to(target)
    return folder


def test_a_template_that_links_out_of_the_folder_is_refused(tiny_llama: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("root:$6$hash")
    folder = with_template_elsewhere(tiny_llama, tmp_path / "model", secret)
    with pytest.raises(
        ThriftbitError, match=r"chat_template\.jinja is a link to .*secret, outside of the model's folder"
    ):
        open_model(folder)
    (folder / "chat_template.jinja").unlink()
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "a.jinja").write_text("secret")
    (folder / "additional_chat_templates").symlink_to(tmp_path / "more")
    with pytest.raises(ThriftbitError, match="outside of the model's folder"):
        open_model(folder)


def test_a_template_that_links_within_the_model_is_taken(tiny_llama: Path, tmp_path: Path) -> None:
    repository = tmp_path / "models--owner--name"
    (repository / "blobs").mkdir(parents=True)
    (repository / "snapshots").mkdir()
    (repository / "blobs" / "abc").write_text("{{ messages }}")
    hub = with_template_elsewhere(tiny_llama, repository / "snapshots" / ("0" * 40), Path("../../blobs/abc"))
    assert open_model(hub).metadata["tokenizer.chat_template"] == "{{ messages }}"
    (tmp_path / "linked").symlink_to(hub)
    assert open_model(tmp_path / "linked").metadata["tokenizer.chat_template"] == "{{ messages }}"
    folder = with_template_elsewhere(tiny_llama, tmp_path / "model", Path("template.txt"))
    (folder / "template.txt").write_text("{{ bos }}")
    assert open_model(folder).metadata["tokenizer.chat_template"] == "{{ bos }}"
    other = tmp_path / "models--other--name" / "blobs"
    other.mkdir(parents=True)
    (other / "abc").write_text("of another repository")
    stolen = with_template_elsewhere(tiny_llama, repository / "snapshots" / ("1" * 40), other / "abc")
    with pytest.raises(ThriftbitError, match="outside of the model's folder"):
        open_model(stolen)
