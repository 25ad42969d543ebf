"""Every command takes every name of a model, and says something true and useful of what is no language model."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest

from conftest import RunThriftbit
from thriftbit.demo import open_demo_model
from thriftbit.quantization.plan import make_plan
from thriftbit.quantization.quantize import quantize

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = open_demo_model()
    return quantize(model, make_plan(model, "Q4_K_M"), tmp_path_factory.mktemp("named") / "demo-Q4_K_M.gguf").path


@pytest.fixture
def run(run_thriftbit: RunThriftbit, tmp_path: Path) -> Run:
    """Return a function that runs a command at home in an empty folder."""
    home = {name: str(tmp_path / name) for name in ("HOME", "THRIFTBIT_CACHE", "THRIFTBIT_DATA", "HF_HOME")}
    return lambda *arguments: run_thriftbit(*arguments, **home)


def write_embedding_model(path: Path) -> Path:
    """Return a whole nomic-bert, as llama.cpp's converter names its parts."""
    writer = gguf.GGUFWriter(path, "nomic-bert")
    for key, value in (("block_count", 1), ("context_length", 64), ("embedding_length", 32), ("pooling_type", 1)):
        writer.add_uint32(f"nomic-bert.{key}", value)
    for name in ("token_embd.weight", "blk.0.attn_qkv.weight", "blk.0.ffn_up.weight"):
        writer.add_tensor(name, np.zeros((32, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("name", ["demo-Q4_K_M.gguf", "demo-Q4_K_M", "demo", "short"])
def test_a_model_goes_by_any_of_its_names(demo: Path, tmp_path: Path, run: Run, name: str) -> None:
    shutil.copy(demo, tmp_path / demo.name)
    assert run("alias", "set", "short", "demo-Q4_K_M.gguf").returncode == 0
    answer = run("chat", name, "-p", "Hello", "--set", "max-tokens=3", "--context", "64", "--json")
    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout)["model"] == "demo-Q4_K_M.gguf"
    assert json.loads(run("inspect", name, "--json").stdout)["files"] == ["demo-Q4_K_M.gguf"]
    assert json.loads(run("fit", name, "--json").stdout)["model"]
    dry = run("quantize", name, "--to", "Q2_K", "--allow-requantize", "--dry-run", "--json")
    assert dry.returncode == 0, dry.stderr
    assert json.loads(run("export", name, "--to", "llama.cpp", "--dry-run", "--json").stdout)["program"] == "llama.cpp"


@pytest.mark.parametrize(
    "command",
    [
        ("chat", "-p", "Hello"), ("serve",), ("fit",), ("measure", "--only", "speed"), ("compare", "demo-Q4_K_M.gguf"),
    ],
    ids=lambda command: command[0],
)  # fmt: skip
def test_an_embedding_model_is_told_from_one_that_chats(
    demo: Path, tmp_path: Path, run: Run, command: tuple[str, ...]
) -> None:
    shutil.copy(demo, tmp_path / demo.name)
    write_embedding_model(tmp_path / "nomic-embed-F32.gguf")
    result = run(command[0], "nomic-embed-F32.gguf", *command[1:])
    assert result.returncode == 1
    assert "nomic-embed-F32.gguf is an embedding model" in result.stderr
    assert "llama-server -m nomic-embed-F32.gguf --embeddings" in result.stderr
    assert "GGML_ASSERT" not in result.stderr and "Traceback" not in result.stderr


def test_an_embedding_model_where_it_is_welcome(tmp_path: Path, run: Run) -> None:
    write_embedding_model(tmp_path / "nomic-embed-F32.gguf")
    found = json.loads(run("find", "--local", "--json").stdout)
    assert [(each["kind"], each["command"]) for each in found["local"]] == [
        ("embedding", "thriftbit inspect nomic-embed-F32.gguf")
    ]
    assert found["next"] == []
    assert "embedding" in run("ls").stdout
    commands = {
        program: json.loads(run("export", "nomic-embed-F32", "--to", program, "--dry-run", "--json").stdout)["command"]
        for program in ("ollama", "lmstudio", "llama.cpp")
    }
    assert "api/embed" in commands["ollama"] and "ollama run" not in commands["ollama"]
    assert commands["llama.cpp"].endswith("--embeddings") and commands["lmstudio"] == "lms load"


def test_next_steps_are_right(demo: Path, tmp_path: Path, run: Run) -> None:
    """The original that was quantized already is not proposed to be quantized once more."""
    shutil.copy(demo, tmp_path / demo.name)
    model = open_demo_model()
    quantize(model, make_plan(model, "BF16"), tmp_path / "demo-BF16.gguf")
    steps = json.loads(run("find", "--local", "--json").stdout)["next"]
    assert [step["command"] for step in steps] == ["thriftbit chat demo-Q4_K_M.gguf"]
    ranked = run("fit").stdout
    assert "Take: demo-Q4_K_M.gguf" in ranked and "thriftbit chat demo-Q4_K_M.gguf" in ranked


def test_chat_without_a_model_where_nobody_can_be_asked(demo: Path, tmp_path: Path, run: Run) -> None:
    nothing = run("chat", "-p", "Hello")
    assert nothing.returncode == 2 and "thriftbit pull OWNER/NAME" in nothing.stderr
    shutil.copy(demo, tmp_path / demo.name)
    some = run("chat", "-p", "Hello")
    assert some.returncode == 2 and "thriftbit chat MODEL, for example demo-Q4_K_M.gguf" in some.stderr
