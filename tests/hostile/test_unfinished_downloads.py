"""Downloads that stopped in the middle: the error says so, and how to go on."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from thriftbit.containers.unfinished_download import SUFFIXES, how_to_finish
from thriftbit.errors import ThriftbitError
from thriftbit.quantization.plan import make_plan
from thriftbit.quantization.quantize import quantize
from thriftbit.sources.open_model import open_model


def refusal(path: Path) -> str:
    with pytest.raises(ThriftbitError) as caught:
        open_model(path)
    return str(caught.value)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_weights_that_are_still_to_come(tiny_llama: Path, tmp_path: Path, suffix: str) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_llama, folder)
    name = f"model.safetensors{suffix}"
    (folder / "model.safetensors").rename(folder / name)
    message = refusal(folder)
    assert f"the weights are not all here ({name})" in message
    assert f"Finish the download, of which {name} is a part, with the program that began it" in message


def test_in_the_hubs_cache_the_command_is_given(tiny_llama: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / "models--owner--name" / "snapshots" / ("0" * 40)
    shutil.copytree(tiny_llama, snapshot)
    (snapshot / "model.safetensors").unlink()
    (snapshot / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-00001-of-00002.safetensors"}}')
    assert "1 of its 1 shards missing" in (message := refusal(snapshot))
    assert "Finish the download: hf download owner/name" in message


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_file_that_was_cut_off(tiny_llama: Path, tmp_path: Path, share: float) -> None:
    model = open_model(tiny_llama)
    path = quantize(model, make_plan(model, "Q8_0"), tmp_path / "tiny.gguf").path
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    assert "not all here. Finish the download" in refusal(path)
    folder = tmp_path / "model"
    shutil.copytree(tiny_llama, folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[: int(share * weights.stat().st_size)])
    assert "is not a whole safetensors file" in (message := refusal(folder))
    assert "Finish the download" in message


def test_the_command_is_safe_to_paste(tmp_path: Path) -> None:
    assert how_to_finish(tmp_path / "models--a;b--$(touch c)") == "Finish the download, or start it again"
