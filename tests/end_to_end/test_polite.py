"""Polite mode on real processes: who goes first, how threads wait, and a model that goes and comes back."""

from __future__ import annotations

import http.client
import json
import os
import platform
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from conftest import RunThriftbit
from thriftbit.demo import open_demo_model
from thriftbit.errors import ThriftbitError
from thriftbit.quantization.plan import make_plan
from thriftbit.quantization.quantize import quantize
from thriftbit.runtime.chat_settings import Value
from thriftbit.runtime.conversation import Conversation
from thriftbit.runtime.engine import Engine
from thriftbit.runtime.polite import Readings
from thriftbit.runtime.polite_process import NICENESS, SHORT_WAITING
from thriftbit.runtime.serve import Server

SOON = 0.01  # minutes
BRIEF: dict[str, Value] = {"temperature": 0.0, "max-tokens": 4}
PLENTY = Readings(available_bytes=1 << 50, total_bytes=1 << 50)
SHORT = Readings(available_bytes=1, total_bytes=1 << 50)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = open_demo_model()
    return quantize(model, make_plan(model, "Q8_0"), tmp_path_factory.mktemp("polite") / "demo.gguf").path


def until(happened: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def environment_of_any_child() -> dict[str, str]:
    """Not always `os.environ`: torch sets variables that Python does not see, and its children do."""
    command = [sys.executable, "-c", "print(flush=True); input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline()
        environment = psutil.Process(child.pid).environ()
        child.communicate(b"\n")
    return environment


def gone(process_id: int) -> None:
    until(lambda: not psutil.pid_exists(process_id))


def nothing(text: str, is_thought: bool) -> None:
    """Listens to nothing"""


LINUX = tuple(map(int, re.findall(r"\d+", platform.release())[:2])) if sys.platform == "linux" else (0, 0)
LISTENS_TO_SLICES = LINUX >= (6, 12) and platform.machine() in ("x86_64", "aarch64")


def slice_ns(process: int, thread: int) -> int:
    """Return the nanoseconds of one turn of the thread."""
    found = re.search(
        r"^se\.slice\s*:\s*(\d+)$", Path(f"/proc/{process}/task/{thread}/sched").read_text(), re.MULTILINE
    )
    assert found
    return int(found[1])


# ---------------------------------------------------------------- who goes first


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has classes of priority")
def test_every_thread_of_llama_cpp_steps_back_and_no_other(demo: Path) -> None:
    ours, environment = os.getpriority(os.PRIO_PROCESS, 0), dict(os.environ)
    with Engine(demo, context_tokens=512, threads=2, polite=True) as engine:
        engine.generate("Hello", max_tokens=300, ignore_end=True)
        process = psutil.Process(engine.process_id)
        assert process.nice() == max(NICENESS, ours) and SHORT_WAITING.items() <= process.environ().items()
        if sys.platform == "linux":
            threads = [thread.id for thread in process.threads()]
            assert len(threads) > 2
            assert {os.getpriority(os.PRIO_PROCESS, each) for each in threads} == {process.nice()}
            if LISTENS_TO_SLICES:
                assert {slice_ns(engine.process_id, each) for each in threads} == {20_000_000}
            assert process.ionice() == (psutil.IOPRIO_CLASS_BE, 7)
    assert os.getpriority(os.PRIO_PROCESS, 0) == ours and os.environ == environment


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has classes of priority")
def test_at_full_speed_nothing_is_different(demo: Path) -> None:
    with Engine(demo, context_tokens=64, threads=2) as engine:
        process = psutil.Process(engine.process_id)
        assert process.nice() == os.getpriority(os.PRIO_PROCESS, 0)
        assert process.environ() == environment_of_any_child()
        assert os.getsid(engine.process_id) == os.getsid(0)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has classes of priority")
@pytest.mark.parametrize("command", ["serve", "compare"])
@pytest.mark.parametrize(("arguments", "polite"), [((), True), (("--full-speed",), False)])
def test_the_command_is_polite_unless_told_otherwise(
    command: str,
    arguments: tuple[str, ...],
    polite: bool,
    demo: Path,
    thriftbit_environment: dict[str, str],
    tmp_path: Path,
) -> None:
    files = [demo]
    if command == "compare":
        model = open_demo_model()
        files.append(quantize(model, make_plan(model, "Q4_0"), tmp_path / "other.gguf").path)
    line = [sys.executable, "-P", "-m", "thriftbit", command, *map(str, files), "--port", "0", "--json", *arguments]
    with subprocess.Popen(line, env=thriftbit_environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        assert run.stdout is not None
        assert run.stdout.readline()
        engines = psutil.Process(run.pid).children()
        assert len(engines) == len(files)
        assert all((engine.nice() > psutil.Process(run.pid).nice()) == polite for engine in engines)
        run.send_signal(signal.SIGINT)
        run.communicate(timeout=30)
    assert run.returncode == 0


# ---------------------------------------------------------------- threads that follow the load

COMPUTING_THREADS = """
import json, os, sys
from pathlib import Path
from thriftbit.runtime.thread_limit import ThreadLimit

limit = ThreadLimit()
from dataclasses import asdict
from thriftbit.machine.running_plan import RunningPlan
from thriftbit.runtime.engine_process import LoadedModel

settings = {"path": sys.argv[1], "threads": 2, "chat_template": None, "polite": False}
settings["plan"] = asdict(RunningPlan(512))
model = LoadedModel(settings)

def computed():
    return {task.name: int((task / "schedstat").read_text().split()[0]) for task in Path("/proc/self/task").iterdir()}

found = []
for most in (None, 1, 2, 1):
    limit.threads = most
    before = computed()
    model.complete({"prompt": "Hello", "max_tokens": 64, "temperature": 0, "ignore_eos": True})
    spent = [after - before.get(thread, 0) for thread, after in computed().items()]
    found.append(sum(each > 0.3 * max(spent) for each in spent))
print(json.dumps(found), flush=True)
os._exit(0)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only there the number of threads can be changed")
def test_the_number_of_threads_can_be_changed_while_it_runs(demo: Path) -> None:
    command = [sys.executable, "-P", "-c", COMPUTING_THREADS, str(demo)]
    environment = {**os.environ, **SHORT_WAITING}  # beside other tests, spinning takes a minute
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=120)
    assert json.loads(run.stdout) == [2, 1, 2, 1]


@pytest.mark.skipif(sys.platform != "linux", reason="only there the number of threads can be changed")
def test_beside_programs_that_compute_one_thread_is_left(demo: Path) -> None:
    with Engine(demo, context_tokens=512, threads=2, polite=True) as engine, ExitStack() as stack:
        for _ in range(os.cpu_count() or 1):
            program = subprocess.Popen([sys.executable, "-c", "while True: pass"])
            stack.callback(program.wait)
            stack.callback(program.kill)

        def one_is_left() -> bool:
            engine.generate("Hello", max_tokens=8, ignore_end=True)
            return engine.threads_now() == 1

        until(one_is_left)
        assert engine.threads == 2


# ---------------------------------------------------------------- a conversation


def test_a_chat_goes_on_after_its_model_was_unloaded(demo: Path, told: list[str]) -> None:
    with Conversation(demo, context_tokens=256, threads=1, settings=BRIEF, unload_after_minutes=SOON) as chat:
        first = chat.ask("Where?", nothing)
        gone(chat._engine.process_id)  # type: ignore[union-attr]
        known = chat.statistics()
        assert known.unloaded == "nobody asked it anything for 1 second" and known.memory_bytes is None
        assert known.used_tokens >= first.prompt_tokens and chat._engine is None  # a look does not load it
        assert chat.retry(nothing).text == first.text
        assert "The model was unloaded, as nobody asked it anything for 1 second; loading it again." in told
        assert not chat.statistics().unloaded


def test_an_answer_is_not_cut_by_the_time(demo: Path) -> None:
    with Conversation(demo, context_tokens=512, threads=1, unload_after_minutes=0.001) as chat:
        seen: list[str] = []

        def slowly(text: str, is_thought: bool) -> None:
            seen.append(text)
            time.sleep(0.02)

        chat.settings |= {"max-tokens": 30}
        assert chat.ask("Where?", slowly).generated_tokens == 30 and len(seen) > 10


def test_a_chat_whose_model_has_no_room_any_more_says_so_and_lives(demo: Path) -> None:
    now = PLENTY
    with Conversation(
        demo, context_tokens=256, threads=1, settings=BRIEF, unload_after_minutes=SOON, read=lambda: now
    ) as chat:
        chat.ask("Where?", nothing)
        until(lambda: chat._engine is None)
        now = SHORT
        with pytest.raises(ThriftbitError, match=r"demo\.gguf was unloaded and takes .* are free now"):
            chat.ask("And then?", nothing)
        now = PLENTY
        assert chat.retry(nothing).text and [each["content"] for each in chat.messages[::2]] == ["Where?", "And then?"]


def test_memory_that_gets_short_unloads_a_model_that_rests(demo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("thriftbit.runtime.polite._SETTLED_SECONDS", 0.2)
    monkeypatch.setattr("thriftbit.runtime.idle._MOST_SECONDS_BETWEEN_LOOKS", 0.05)
    now = PLENTY
    with Conversation(
        demo, context_tokens=256, threads=1, settings=BRIEF, unload_after_minutes=None, read=lambda: now
    ) as chat:
        chat.ask("Where?", nothing)
        time.sleep(0.5)
        assert chat._engine is not None
        now = SHORT
        until(lambda: chat._engine is None)
        assert chat.statistics().unloaded == "memory became short"


# ---------------------------------------------------------------- a server


def ask(address: str, path: str = "/v1/chat/completions", body: object = None) -> tuple[int, dict[str, object]]:
    place = urlsplit(address)
    connection = http.client.HTTPConnection(str(place.hostname), place.port, timeout=60)
    text = json.dumps(body if body is not None else {"messages": [{"role": "user", "content": "x"}], "max_tokens": 4})
    connection.request("GET" if body == "" else "POST", path, None if body == "" else text)
    answer = connection.getresponse()
    try:
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


@pytest.fixture
def server(demo: Path) -> Iterator[Server]:
    with Server(demo, host="127.0.0.1", port=0, context_tokens=256, threads=1, unload_after_minutes=SOON) as running:
        yield running


def test_a_server_answers_on_its_port_while_its_model_goes_and_comes(server: Server) -> None:
    assert ask(server.address)[0] == 200
    for _ in range(2):
        process_id = server.process_id
        until(lambda: server.resting)
        gone(process_id)
        assert ask(server.address, "/health", "") == (200, {"status": "ok"}) and server.resting
        assert ask(server.address, "/metrics", "")[0] == 503 and server.resting
        assert ask(server.address)[0] == 200


def test_a_connection_that_is_kept_outlives_the_model(server: Server) -> None:
    place = urlsplit(server.address)
    connection = http.client.HTTPConnection(str(place.hostname), place.port, timeout=60)
    body = json.dumps({"messages": [{"role": "user", "content": "Where?"}], "max_tokens": 4})
    kept = None
    for _ in range(2):
        connection.request("POST", "/v1/chat/completions", body)
        assert json.loads(connection.getresponse().read())["choices"]
        assert kept in (None, connection.sock) and connection.sock is not None
        kept = connection.sock
        until(lambda: server.resting)
    connection.close()


def test_many_who_come_while_it_sleeps_are_all_answered(server: Server) -> None:
    from concurrent.futures import ThreadPoolExecutor

    until(lambda: server.resting)
    with ThreadPoolExecutor(8) as users:
        assert [status for status, _ in users.map(lambda number: ask(server.address), range(8))] == [200] * 8


def test_looking_is_not_using(server: Server) -> None:
    deadline = time.monotonic() + 30
    while not server.resting:
        assert ask(server.address, "/v1/models", "")[0] == 200 or server.resting
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_a_server_without_room_says_so_and_goes_on(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    until(lambda: server.resting)
    monkeypatch.setattr("thriftbit.runtime.serve.read_now", lambda: SHORT)
    status, answer = ask(server.address)
    assert status == 503 and "was unloaded and takes" in str(answer["error"])
    monkeypatch.setattr("thriftbit.runtime.serve.read_now", lambda: PLENTY)
    assert ask(server.address)[0] == 200


def test_a_server_that_sleeps_ends_when_told_to(demo: Path, thriftbit_environment: dict[str, str]) -> None:
    command = [sys.executable, "-P", "-m", "thriftbit", "serve", str(demo), "--port", "0", "--json"]
    command += ["--threads", "1", "--unload-after", str(SOON)]
    with subprocess.Popen(
        command, env=thriftbit_environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as run:
        assert run.stdout is not None and run.stderr is not None
        said = ""
        while not said.endswith("}\n"):
            said += run.stdout.readline()
        place = urlsplit(json.loads(said)["address"])
        until(lambda: not psutil.Process(run.pid).children())
        with socket.create_connection((place.hostname, place.port)):  # somebody who says nothing
            run.send_signal(signal.SIGINT)
            _, errors = run.communicate(timeout=30)
    assert run.returncode == 0 and "Traceback" not in errors
    assert "Unloaded, as nobody asked it anything for 1 second; the next question loads it again." in errors


def test_a_time_below_zero_is_refused(demo: Path, run_thriftbit: RunThriftbit) -> None:
    assert run_thriftbit("chat", demo, "-p", "x", "--unload-after", "-1").returncode == 2
