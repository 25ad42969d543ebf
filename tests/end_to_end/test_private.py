"""Nothing leaves the computer: chat and quantize work without any network, and open no socket but to themselves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from thriftbit.demo import open_demo_model
from thriftbit.quantization.plan import make_plan
from thriftbit.quantization.quantize import quantize

# Brings the loopback interface up, which a new network namespace has but down, and becomes the command.
ALONE = """
import fcntl, os, socket, struct, sys
with socket.socket() as any_socket:
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sH14x", b"lo", 0x1 | 0x40))  # SIOCSIFFLAGS: up and running
assert os.listdir("/sys/class/net") != [] and socket.if_nameindex() == [(1, "lo")], socket.if_nameindex()
os.execv(sys.argv[1], sys.argv[1:])
"""
# Loaded by every Python that is started, the engine's too: writes down what happens to sockets.
WATCH = """
import json, os, sys
def watch(event, arguments):
    if event.startswith("socket.") and event != "socket.__new__":
        with open(os.environ["WATCHED"], "a") as file:
            place = arguments[0] if event == "socket.getaddrinfo" else arguments[-1]
            print(json.dumps([event, repr(place)]), file=file)
sys.addaudithook(watch)
"""


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = open_demo_model()
    return quantize(model, make_plan(model, "Q8_0"), tmp_path_factory.mktemp("private") / "demo.gguf").path


def commands(demo: Path, folder: Path) -> list[list[str]]:
    chat = ["chat", str(demo), "-p", "Where?", "--threads", "1", "--set", "max-tokens=4", "--json"]
    return [chat, ["quantize", str(folder), "--to", "Q8_0", "-o", "made.gguf", "--json"]]


def can_be_alone() -> bool:
    try:
        return subprocess.run(["unshare", "-rn", "true"], capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not can_be_alone(), reason="no network namespaces here")
def test_chat_and_quantize_work_where_there_is_no_network(
    demo: Path, tiny_llama: Path, tmp_path: Path, thriftbit_environment: dict[str, str]
) -> None:
    environment = {key: value for key, value in thriftbit_environment.items() if key != "HF_HUB_OFFLINE"}
    for command in commands(demo, tiny_llama):
        line = ["unshare", "-rn", sys.executable, "-c", ALONE, sys.executable, "-P", "-m", "thriftbit", *command]
        result = subprocess.run(
            line, cwd=tmp_path, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        assert result.returncode == 0, result.stderr
        assert json.loads(result.stdout)


def test_no_socket_is_opened_but_to_this_computer(
    demo: Path, tiny_llama: Path, tmp_path: Path, thriftbit_environment: dict[str, str]
) -> None:
    (tmp_path / "watch").mkdir()
    (tmp_path / "watch" / "sitecustomize.py").write_text(textwrap.dedent(WATCH))
    watched = tmp_path / "sockets"
    environment = {key: value for key, value in thriftbit_environment.items() if key != "HF_HUB_OFFLINE"}
    environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path / "watch"), environment["PYTHONPATH"]])
    environment["WATCHED"] = str(watched)
    events: dict[str, list[list[str]]] = {}
    for command in commands(demo, tiny_llama):
        watched.write_text("")
        line = [sys.executable, "-P", "-m", "thriftbit", *command]
        result = subprocess.run(line, cwd=tmp_path, env=environment, stdin=subprocess.DEVNULL, capture_output=True)
        assert result.returncode == 0, result.stderr
        events[command[0]] = [json.loads(each) for each in watched.read_text().splitlines()]
    assert events["quantize"] == []
    assert ["socket.connect", "('127.0.0.1', "] in [[name, where[:14]] for name, where in events["chat"]]
    assert all("127.0.0.1" in where for _, where in events["chat"]), events["chat"]
