"""The check at the end of `quantize`: llama.cpp reads text as the original's tokenizer does, or it is told."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from conftest import RunThriftbit
from thriftbit import make_plan, open_model, quantize
from thriftbit.quantization.self_check import TEXTS, TokenCheck


def checked(folder: Path, output: Path) -> TokenCheck:
    model = open_model(folder)
    result = quantize(model, make_plan(model, "Q8_0"), output, check=True)
    assert result.check is not None and output.exists()
    return result.check


def test_a_tokenizer_that_llama_cpp_follows(tiny_llama: Path, tmp_path: Path, run_thriftbit: RunThriftbit) -> None:
    path = tmp_path / "tiny.gguf"
    result = run_thriftbit("quantize", tiny_llama, "--to", "Q8_0", "-o", path)
    assert "Tokenizer checked: llama.cpp reads" in result.stdout
    document = json.loads(run_thriftbit("quantize", tiny_llama, "--to", "Q8_0", "-o", path, "--force", "--json").stdout)
    assert document["check"]["texts"] > len(TEXTS) and document["check"]["differing"] == 0
    unchecked = run_thriftbit("quantize", tiny_llama, "--to", "Q8_0", "-o", path, "--force", "--json", "--no-check")
    assert json.loads(unchecked.stdout)["check"] is None


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
