"""The converter's process sees no programs of the model's, no secrets and no network."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import numpy as np
import pytest

from thriftbit.errors import ThriftbitError
from thriftbit.sources.checkpoint import Checkpoint
from thriftbit.sources.converter.finding import Converter
from thriftbit.sources.converter.process import ConverterProcess
from thriftbit.sources.tensor import Tensor

# A program in the converter's place that tells what it can see and do
SPY = """
import json, os, socket, subprocess
from pathlib import Path

def attempt(act):
    try:
        act()
    except Exception as error:
        return type(error).__name__
    return "done"

class ModelBase:
    @staticmethod
    def load_hparams(folder, mistral):
        port = int(os.environ["SPY_PORT"])
        raise ValueError(json.dumps({
            "files": sorted(os.listdir(folder)),
            "variables": sorted(os.environ),
            "auto_map": "auto_map" in json.loads((Path(folder) / "config.json").read_text()),
            "connect": attempt(lambda: socket.create_connection(("127.0.0.1", port), 1)),
            "program": attempt(lambda: subprocess.run(["true"])),
        }))

class ModelType:
    TEXT = 1
"""
DIES = """
class ModelBase:
    @staticmethod
    def load_hparams(folder, mistral):
        import os, sys
        print("it is too much for me", file=sys.stderr, flush=True)
        os._exit(3)
"""


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("modeling_new.py", "weights.bin", "model.safetensors", "tokenizer.json"):
        (folder / name).write_text("{}")
    config = {"architectures": ["NewForCausalLM"], "auto_map": {"AutoConfig": "modeling_new.NewConfig"}}
    (folder / "config.json").write_text(json.dumps(config))
    tensor = Tensor("w", (1, 1), "F32", lambda start, stop: np.zeros((stop - start, 1), np.float32))
    return Checkpoint(folder, config, {"w": tensor})


def converter(tmp_path: Path, program: str) -> Converter:
    (tmp_path / "spy" / "conversion").mkdir(parents=True)
    (tmp_path / "spy" / "conversion" / "__init__.py").write_text(program)
    return Converter(tmp_path / "spy")


def seen(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trust_code: bool
) -> dict[str, object]:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("SPY_PORT", str(server.getsockname()[1]))
        monkeypatch.setattr("thriftbit.sources.converter.process.shown", str)
        with pytest.raises(ThriftbitError) as caught:
            ConverterProcess(converter(tmp_path, SPY), checkpoint, trust_code=trust_code)
    message = str(caught.value)
    found: dict[str, object] = json.loads(message[message.index("{") :])
    return found


def test_it_is_shut_in(checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = seen(checkpoint, tmp_path, monkeypatch, trust_code=False)
    assert found["files"] == ["config.json", "model.safetensors", "tokenizer.json"]
    assert not found["auto_map"]
    assert found["connect"] != "done" and found["program"] == "PermissionError"
    variables = found["variables"]
    assert isinstance(variables, list)
    assert not {"HF_TOKEN", "AWS_SECRET_ACCESS_KEY"} & set(variables)
    assert {"HF_HUB_OFFLINE", "HF_HUB_DISABLE_IMPLICIT_TOKEN"} <= set(variables)


def test_trusted_code_gets_files_and_network_but_no_token(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = seen(checkpoint, tmp_path, monkeypatch, trust_code=True)
    assert "modeling_new.py" in found["files"] and found["auto_map"]  # type: ignore[operator]
    assert found["connect"] == "done" and found["program"] == "done"
    assert "HF_TOKEN" not in found["variables"]  # type: ignore[operator]


def test_its_death_is_one_sentence(checkpoint: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(ThriftbitError, match="converter failed: 'it is too much for me'"):
        ConverterProcess(converter(tmp_path, DIES), checkpoint)


def test_nothing_is_left_behind(checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    with pytest.raises(ThriftbitError):
        ConverterProcess(converter(tmp_path, DIES), checkpoint)
    assert not list(temporary.iterdir())
