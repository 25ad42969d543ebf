"""The check at the end of `quantize`: what llama.cpp reads, holds and computes otherwise than the original is told."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from conftest import RunThriftbit
from thriftbit import make_plan, open_model, quantize
from thriftbit.machine.room import Room
from thriftbit.quantization.logit_check import check_logits
from thriftbit.quantization.self_check import TEXTS, LogitCheck, TokenCheck, check_tokens
from thriftbit.sources.model import Model
from thriftbit.sources.tensor import Tensor

PARAMETERS = 2 + 3 * 9  # of the tiny Llama: the tables and what its layers have


def checked(folder: Path, output: Path) -> TokenCheck:
    model = open_model(folder)
    return check_tokens(model, quantize(model, make_plan(model, "Q8_0"), output).path)


def test_a_tokenizer_that_llama_cpp_follows(tiny_llama: Path, tmp_path: Path, run_thriftbit: RunThriftbit) -> None:
    path, defaults = tmp_path / "tiny.gguf", {"THRIFTBIT_CONFIG": str(tmp_path / "none.toml")}
    result = run_thriftbit("quantize", tiny_llama, "--to", "Q8_0", "-o", path, **defaults)
    assert "Tokenizer checked: llama.cpp reads" in result.stdout
    assert "llama.cpp computes the same with them as transformers" in result.stdout
    again = run_thriftbit("quantize", tiny_llama, "--to", "Q8_0", "-o", path, "--force", "--json", **defaults)
    document = json.loads(again.stdout)
    assert document["check"]["texts"] > len(TEXTS) and document["check"]["differing"] == 0
    assert document["logit_check"]["compared"] == PARAMETERS and document["logit_check"]["differing"] == {}
    unchecked = run_thriftbit("quantize", tiny_llama, "--to", "Q8_0", "-o", path, "--force", "--json", "--no-check")
    document = json.loads(unchecked.stdout)
    assert document["check"] is None and document["logit_check"] is None


@pytest.mark.parametrize("level", ["F16", "Q2_K"])
def test_broken_files_are_told_from_coarse_ones(tiny_llama: Path, tmp_path: Path, level: str) -> None:
    model = open_model(tiny_llama)
    right = logits_checked(model, model, level, tmp_path)
    assert not right.is_wrong and right.compared == PARAMETERS and right.texts == 3, right
    for key, value in (("rope.freq_base", 300.0), ("attention.layer_norm_rms_epsilon", 0.3)):
        wrong = replace(model, metadata={**model.metadata, f"llama.{key}": np.float32(value)})
        check = logits_checked(wrong, model, level, tmp_path)
        assert check.is_wrong and not check.differing and "computes something else" in check.describe(), key
    made = exchanged(model, "blk.1.ffn_gate.weight", "blk.1.ffn_up.weight")
    made = rolled(rolled(made, "blk.2.attn_q.weight"), "output.weight")
    check = logits_checked(made, model, level, tmp_path)
    assert set(check.differing) == {
        "model.layers.1.mlp.gate_proj.weight",
        "model.layers.1.mlp.up_proj.weight",
        "model.layers.2.self_attn.q_proj.weight",
        "lm_head.weight",
    }
    assert check.is_wrong and "4 of 29 weight matrices and vectors are not the original's" in check.describe()


def test_what_would_take_long_or_much_memory_is_left_out_with_a_reason(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = open_model(tiny_llama)
    path = quantize(model, make_plan(model, "Q8_0"), tmp_path / "tiny.gguf").path
    check = check_logits(model, path, longest_seconds=0)
    assert not check.is_wrong and check.compared == 2 + 9  # the tables and the first layer
    assert "Logits not checked: that takes about" in check.describe()
    monkeypatch.setattr("thriftbit.quantization.logit_check.room_here", lambda: Room(1 << 20, 0, "", False, "free now"))
    check = check_logits(model, path)
    assert check.compared == 2 and "of memory, and 1.05 MB are free" in check.describe()


def logits_checked(made: Model, original: Model, level: str, folder: Path) -> LogitCheck:
    """Return the check of a file that was made of one model, held against another."""
    path = quantize(made, make_plan(made, level), folder / "made.gguf", force=True).path
    return check_logits(original, path)


def exchanged(model: Model, one: str, other: str) -> Model:
    """Return the model with the weights of two tensors in each other's place."""
    names = {one: other, other: one}
    by_name = {tensor.name: tensor for tensor in model.tensors}
    tensors = (replace(by_name[names.get(each.name, each.name)], name=each.name) for each in model.tensors)
    return replace(model, tensors=tuple(tensors))


def rolled(model: Model, name: str) -> Model:
    """Return the model with each row of a matrix where the next should be."""

    def moved(tensor: Tensor) -> Tensor:
        return replace(tensor, read=lambda start, stop: np.roll(tensor.load(), 1, axis=0)[start:stop])

    return replace(model, tensors=tuple(moved(each) if each.name == name else each for each in model.tensors))


@pytest.mark.parametrize("tokenizer_class", ["PreTrainedTokenizerFast", "GPT2Tokenizer"])
def test_a_tokenizer_that_llama_cpp_does_not_follow(tiny_llama: Path, tmp_path: Path, tokenizer_class: str) -> None:
    """The second class is built by transformers, and not read from tokenizer.json."""
    folder = tmp_path / "tiny"
    shutil.copytree(tiny_llama, folder)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["added_tokens"][0]["rstrip"] = True
    mark = tokenizer["added_tokens"][0]["content"]
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    settings = json.loads((folder / "tokenizer_config.json").read_text()) | {"tokenizer_class": tokenizer_class}
    if tokenizer_class == "GPT2Tokenizer":
        settings["added_tokens_decoder"] = {str(tokenizer["added_tokens"][0]["id"]): tokenizer["added_tokens"][0]}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    template = "{% for m in messages %}" + mark + "\n{{ m['content'] }}{% endfor %}"
    (folder / "chat_template.jinja").write_text(template)
    check = checked(folder, tmp_path / "tiny.gguf")
    assert check.differing == 2  # white space around the token, and the dialogue
    assert check.text.startswith(mark)
    assert check.source_ids != check.file_ids
    assert "Warning: llama.cpp reads" in check.describe() and repr(mark)[1:-1] in check.describe()


def test_what_cannot_be_compared_is_said(tiny_llama: Path, tmp_path: Path) -> None:
    model = open_model(tiny_llama)
    whole = quantize(model, make_plan(model, "F16"), tmp_path / "whole.gguf").path
    assert "the source is a GGUF" in checked(whole, tmp_path / "small.gguf").describe()


def test_a_template_that_fails_costs_its_text_only(tiny_llama: Path, tmp_path: Path) -> None:
    folder = tmp_path / "tiny"
    shutil.copytree(tiny_llama, folder)
    (folder / "chat_template.jinja").write_text("{{ raise_exception('never') }}")
    check = checked(folder, tmp_path / "tiny.gguf")
    assert not check.skipped and check.differing == 0
