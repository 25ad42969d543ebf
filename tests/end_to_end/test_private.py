"""Nothing leaves the computer: chat, serve, compare and quantize work where there is no network, and open no socket but
to this computer."""

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
# Loaded by every Python that is started, the engine's too: writes down what happens to sockets. Two events reach
# nobody: the making of a socket, and the question to this computer what its own name is.
WATCH = """
import json, os, sys
def watch(event, arguments):
    if event.startswith("socket.") and event not in ("socket.__new__", "socket.gethostname"):
        with open(os.environ["WATCHED"], "a") as file:
            place = arguments[0] if event == "socket.getaddrinfo" else arguments[-1]
            print(json.dumps([event, repr(place)]), file=file)
sys.addaudithook(watch)
"""
# Starts a server of ours, asks it something, and ends it as Ctrl-C does; becomes its exit code.
ASK = """
import http.client, json, signal, subprocess, sys, urllib.parse
server = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE, text=True)
said = ""
while not said.endswith("}\\n"):
    line = server.stdout.readline()
    assert line, said
    said += line
place = urllib.parse.urlsplit(json.loads(said)["address"])
key = place.fragment.partition("key=")[2]
def ask(method, path, **body):
    connection = http.client.HTTPConnection(place.hostname, place.port, timeout=60)
    connection.request(method, path, json.dumps(body), {"Authorization": "Bearer " + key} if key else {})
    answer = connection.getresponse()
    assert answer.status == 200, answer.read()
    return answer
if key:
    ask("POST", "/api/ask", question="Where?", blind=False, against=1, temperature=0, longest=100)
    changes = ask("GET", "/api/changes")
    while json.loads(changes.readline()).get("busy", True):
        pass
    changes.close()
else:
    message = {"role": "user", "content": "Where?"}
    assert json.loads(ask("POST", "/v1/chat/completions", messages=[message], max_tokens=4).read())["choices"]
server.send_signal(signal.SIGINT)
server.wait(30)
print(said)
sys.exit(server.returncode)
"""


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = open_demo_model()
    return quantize(model, make_plan(model, "Q8_0"), tmp_path_factory.mktemp("private") / "demo.gguf").path


@pytest.fixture(scope="module")
def smaller(demo: Path) -> Path:
    model = open_demo_model()
    return quantize(model, make_plan(model, "Q4_0"), demo.with_name("smaller.gguf")).path


@pytest.fixture
def commands(demo: Path, smaller: Path, tiny_llama: Path) -> dict[str, list[str]]:
    """Return the lines that do something with each verb, from its start to its end."""
    ours, short = [sys.executable, "-P", "-m", "thriftbit"], ["--threads", "1", "--json"]
    asking = [sys.executable, "-c", ASK, *ours]
    return {
        "chat": [*ours, "chat", str(demo), "-p", "Where?", "--set", "max-tokens=4", *short],
        "serve": [*asking, "serve", str(demo), "--port", "0", *short],
        "compare": [*asking, "compare", str(demo), str(smaller), *short],
        "quantize": [*ours, "quantize", str(tiny_llama), "--to", "Q8_0", "-o", "made.gguf", "--json"],
    }


def can_be_alone() -> bool:
    try:
        return subprocess.run(["unshare", "-rn", "true"], capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not can_be_alone(), reason="no network namespaces here")
def test_chat_serve_compare_and_quantize_work_where_there_is_no_network(
    commands: dict[str, list[str]], tmp_path: Path, thriftbit_environment: dict[str, str]
) -> None:
    environment = {key: value for key, value in thriftbit_environment.items() if key != "HF_HUB_OFFLINE"}
    for command in commands.values():
        line = ["unshare", "-rn", sys.executable, "-c", ALONE, *command]
        result = subprocess.run(
            line, cwd=tmp_path, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        assert result.returncode == 0, result.stderr
        assert json.loads(result.stdout)


def test_no_socket_is_opened_but_to_this_computer(
    commands: dict[str, list[str]], tmp_path: Path, thriftbit_environment: dict[str, str]
) -> None:
    (tmp_path / "watch").mkdir()
    (tmp_path / "watch" / "sitecustomize.py").write_text(textwrap.dedent(WATCH))
    watched = tmp_path / "sockets"
    environment = {key: value for key, value in thriftbit_environment.items() if key != "HF_HUB_OFFLINE"}
    environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path / "watch"), environment["PYTHONPATH"]])
    environment |= {"WATCHED": str(watched), "THRIFTBIT_CONFIG": str(tmp_path / "none.toml")}  # with quantize's check
    events: dict[str, list[list[str]]] = {}
    for verb, command in commands.items():
        watched.write_text("")
        result = subprocess.run(command, cwd=tmp_path, env=environment, stdin=subprocess.DEVNULL, capture_output=True)
        assert result.returncode == 0, result.stderr
        events[verb] = [json.loads(each) for each in watched.read_text().splitlines()]
    for verb, happened in events.items():  # quantize checks the file's tokenizer with an engine of its own
        connected = [where for name, where in happened if name == "socket.connect"]
        assert connected and all(where.startswith("('127.0.0.1', ") for where in connected), verb
        # Both addresses are this computer's own. `serve` listens on both.
        elsewhere = [(name, where) for name, where in happened if "127.0.0.1" not in where and "'::1'" not in where]
        assert elsewhere == [], verb
