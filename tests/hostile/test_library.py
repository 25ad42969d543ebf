"""Disks full of what strangers left: `find` lists what is sound, says what is wrong with the rest, and never fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from thriftbit.library.inventory import LocalModel, take_inventory
from thriftbit.library.quantized_checkpoint import declared_precision, quantization_settings

from .test_gguf import KEYS, SMALL, STRING, TENSORS, gguf_bytes, key, text
from .test_safetensors import entry, packed

FIXTURE_ONCE = settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
WEIGHTS = packed({"model.layers.0.w.qweight": entry("I32", [2, 3], 0, 24)}, bytes(24))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the current folder, and the only one in which models are looked for."""
    for variable in ("HF_HUB_CACHE", "HF_HOME", "OLLAMA_MODELS", "LLAMA_CACHE", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(variable, raising=False)
    for variable, path in {"HOME": "h", "USERPROFILE": "h", "THRIFTBIT_CACHE": "c", "THRIFTBIT_CONFIG": "f"}.items():
        monkeypatch.setenv(variable, str(tmp_path / path))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def only(folder: Path) -> LocalModel:
    (model,) = take_inventory().models
    return model


@FIXTURE_ONCE
@given(st.integers(0, len(SMALL)), st.binary(max_size=8))
def test_a_gguf_with_any_bytes_in_it(folder: Path, place: int, junk: bytes) -> None:
    (folder / "a.gguf").write_bytes(SMALL[:place] + junk + SMALL[place + len(junk) :])
    model = only(folder)
    assert (model.content is None) == (model.problem is not None)


@FIXTURE_ONCE
@given(st.integers(0, len(SMALL)))
def test_a_gguf_that_ends_anywhere(folder: Path, length: int) -> None:
    (folder / "a.gguf").write_bytes(SMALL[:length])
    assert only(folder).name == "a.gguf"


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-9, 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
SETTINGS = st.dictionaries(
    st.sampled_from(
        ["quant_method", "bits", "w_bit", "format", "quant_algo", "load_in_4bit", "config_groups", "quant_config"]
    ),
    ANYTHING
    | st.sampled_from(["gptq", "awq", "compressed-tensors", "bitsandbytes", "hqq", "modelopt", "mlx", 4, True]),
)
CONFIGS = st.fixed_dictionaries(
    {},
    optional={
        "quantization_config": SETTINGS | ANYTHING,
        "quantization": SETTINGS | ANYTHING,
        "text_config": st.fixed_dictionaries({}, optional={"quantization_config": SETTINGS}) | ANYTHING,
        "architectures": ANYTHING,
        "model_type": ANYTHING,
        "max_position_embeddings": ANYTHING,
    },
)


@given(CONFIGS)
def test_settings_of_any_shape_are_read(config: dict[str, Any]) -> None:
    declared = declared_precision(quantization_settings(config))
    assert declared is None or len(declared) < 80


@FIXTURE_ONCE
@given(CONFIGS)
def test_a_folder_with_any_configuration(folder: Path, config: dict[str, Any]) -> None:
    (folder / "model").mkdir(exist_ok=True)
    (folder / "model/config.json").write_text(json.dumps(config))
    (folder / "model/model.safetensors").write_bytes(WEIGHTS)
    model = only(folder)
    assert model.problem is None
    assert model.content is not None
    assert model.content.bits_per_weight is None or model.content.bits_per_weight > 0


@pytest.mark.parametrize("config", [b"", b"{", b"[]", b"\xff", b"[" * 100_000, b'{"a": 1, "a": 2}', b"x" * 1000])
def test_a_folder_whose_configuration_is_none(folder: Path, config: bytes) -> None:
    (folder / "config.json").write_bytes(config)
    (folder / "model.safetensors").write_bytes(WEIGHTS)
    assert "config.json" in (only(folder).problem or "")


def test_what_only_looks_like_a_file(folder: Path) -> None:
    (folder / "folder.gguf").mkdir()
    (folder / "dangling.gguf").symlink_to("nowhere")
    (folder / "loop.gguf").symlink_to("loop.gguf")
    (folder / "pointer.gguf").write_text("version https://git-lfs.github.com/spec/v1\n")
    (folder / "page.gguf").write_text("<!DOCTYPE html>")
    (folder / "._a.gguf").write_bytes(b"what macOS leaves beside a file")
    if hasattr(os, "mkfifo"):
        os.mkfifo(folder / "pipe.gguf")
    (folder / "sound.gguf").write_bytes(SMALL)
    models = {model.name: model for model in take_inventory().models}
    assert models.pop("sound.gguf").problem is None
    expected = {"dangling.gguf", "loop.gguf", "pointer.gguf", "page.gguf"}
    assert set(models) == expected | ({"pipe.gguf"} if hasattr(os, "mkfifo") else set())
    assert all(model.problem for model in models.values())


def test_claims_of_gigabytes_take_no_memory(folder: Path) -> None:
    for number in range(50):
        (folder / f"{number}.gguf").write_bytes(gguf_bytes(KEYS, TENSORS, tensor_count=(1 << 18) - number))
    tracemalloc.start()
    try:
        assert all(model.problem for model in take_inventory().models)
        assert tracemalloc.get_traced_memory()[1] < 30 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.skipif(
    sys.platform in ("win32", "darwin"), reason="file names there are Unicode, without control characters"
)
def test_names_cannot_drive_the_terminal(folder: Path) -> None:
    evil = "\x1b]0;pwned\x07\x1b[2J[red]Q4_K_M"
    renamed = [key("general.name", STRING, text(evil)), *KEYS]
    (folder / f"{evil}.gguf").write_bytes(gguf_bytes(renamed, TENSORS, bytes(128)))
    (folder / f"{evil}-broken.gguf").write_bytes(b"GGUF")
    Path(os.fsdecode(bytes(folder) + b"/\xff\xfe.gguf")).write_bytes(
        gguf_bytes(renamed, TENSORS, bytes(128), version=2)
    )
    for arguments in (["find"], ["find", "--json"], ["find", evil, "--local"], ["explain", evil]):
        for columns in ("80", "120"):
            done = subprocess.run(
                [sys.executable, "-P", "-m", "thriftbit", *arguments],
                env=os.environ | {"COLUMNS": columns},
                capture_output=True,
            )
            assert done.returncode == 0, done.stderr
            assert done.stderr == b""
            assert not any(byte < 32 and byte != 10 for byte in done.stdout)
    assert b"[red]" in done.stdout or arguments[0] == "explain"
