"""`thriftbit serve` with the client that other programs use, with many of them, and with those that behave badly."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from conftest import RunThriftbit
from thriftbit.demo import open_demo_model
from thriftbit.quantization.plan import make_plan
from thriftbit.quantization.quantize import quantize

openai = pytest.importorskip("openai")


@dataclass
class Served:
    process: subprocess.Popen[str]
    address: str

    @property
    def client(self) -> openai.OpenAI:  # type: ignore[name-defined]
        return openai.OpenAI(base_url=f"{self.address}/v1", api_key="any", max_retries=0, timeout=60)

    def answer(self, text: str, **more: object) -> str:
        with self.client as client:
            messages = [{"role": "user", "content": text}]
            answer = client.chat.completions.create(model="demo", messages=messages, max_tokens=8, **more)
        return str(answer.choices[0].message.content)

    def post(self, path: str, body: bytes, **headers: str) -> int:
        """Return the status."""
        return self.request("POST", path, body, **{"Content-Type": "application/json", **headers})[0]

    def request(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
        place = urlsplit(self.address)
        connection = http.client.HTTPConnection(str(place.hostname), place.port, timeout=60)
        try:
            named = {"Accept-Encoding": "gzip", **headers}
            connection.request(method, path, body, {name.replace("_", "-"): value for name, value in named.items()})
            answer = connection.getresponse()
            return answer.status, answer.read()
        except (BrokenPipeError, ConnectionResetError):
            return 413, b""  # hung up on before all was sent
        finally:
            connection.close()

    def predicted(self) -> bytes:
        """Return how many tokens llama.cpp has written, as it says."""
        metrics = self.request("GET", "/metrics")[1]
        return next(line for line in metrics.splitlines() if line.startswith(b"llamacpp:tokens_predicted_total"))


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = open_demo_model()
    return quantize(model, make_plan(model, "Q8_0"), tmp_path_factory.mktemp("serve") / "demo.gguf").path


@pytest.fixture(scope="module")
def serve(demo: Path, thriftbit_environment: dict[str, str]) -> Iterator[Callable[..., Served]]:
    started: list[Served] = []

    def start(*arguments: str) -> Served:
        command = [sys.executable, "-P", "-m", "thriftbit", "serve", str(demo), "--threads", "1", "--json"]
        process = subprocess.Popen(
            [*command, *arguments], env=thriftbit_environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        said = ""
        while not said.endswith("}\n"):
            line = process.stdout.readline()
            assert line, process.communicate()
            said += line
        started.append(Served(process, json.loads(said)["address"]))
        return started[-1]

    yield start
    for each in started:
        each.process.kill()
        each.process.communicate()


@pytest.fixture(scope="module")
def served(serve: Callable[..., Served]) -> Served:
    return serve("--port", "0")


def test_openais_client_gets_answers_whole_and_in_pieces(served: Served) -> None:
    whole = served.answer("Where?", temperature=0)
    with served.client as client:
        messages = [{"role": "user", "content": "Where?"}]
        stream = client.chat.completions.create(
            model="demo", messages=messages, max_tokens=8, temperature=0, stream=True
        )
        pieces = [event.choices[0].delta.content or "" for event in stream if event.choices]
        assert [model.id for model in client.models.list()] == ["demo.gguf"]
    assert whole and len(pieces) > 1 and "".join(pieces) == whole


def test_sixteen_at_once_are_all_answered(served: Served) -> None:
    with ThreadPoolExecutor(16) as users:
        answers = list(users.map(lambda number: served.answer(f"Number {number}?"), range(16)))
    assert len(answers) == 16 and all(answers)


def test_clients_that_hang_up_leave_it_free_for_others(served: Served) -> None:
    place = urlsplit(served.address)
    body = json.dumps({"messages": [{"role": "user", "content": "On"}], "stream": True, "ignore_eos": True}).encode()
    for _ in range(8):
        with socket.create_connection((place.hostname, place.port)) as connection:
            head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
            connection.sendall(head.encode() + body)
    with socket.create_connection((place.hostname, place.port)) as connection:
        connection.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: 999\r\n\r\nhalf")
    assert served.answer("Still there?")


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b'{"messages": 5}', b'{"messages": [{"role": 1}]}', b"\xff\xfe", b"[" * 50_000],
    ids=["empty", "cut", "list", "number", "role", "bytes", "deep"],
)
def test_malformed_requests_are_refused_and_survived(body: bytes, served: Served) -> None:
    assert 400 <= served.post("/v1/chat/completions", body) <= 500
    assert served.answer("Still there?")


def test_oversized_requests_are_refused_and_survived(served: Served) -> None:
    long = {"messages": [{"role": "user", "content": "word " * 200_000}]}
    assert served.post("/v1/chat/completions", json.dumps(long).encode()) == 400
    assert served.answer("Still there?")


def test_health_metrics_and_a_page_for_people(served: Served) -> None:
    def get(path: str) -> bytes:
        request = urllib.request.Request(f"{served.address}{path}", headers={"Accept-Encoding": "gzip"})
        with urllib.request.urlopen(request) as answer:
            return bytes(answer.read())

    assert json.loads(get("/health")) == {"status": "ok"}
    assert b"llamacpp:requests_processing" in get("/metrics") and len(get("/")) > 1000


def test_pages_from_elsewhere_are_not_answered(served: Served) -> None:
    """Nor does llama.cpp do any work for them."""
    port = urlsplit(served.address).port
    body = b'{"messages": [{"role": "user", "content": "x"}], "max_tokens": 4}'
    before = served.predicted()
    for headers in (
        {"Host": "evil.example"},
        {"Host": f"evil.example:{port}"},
        {"Origin": "http://evil.example", "Content-Type": "text/plain"},
        {"Origin": "null"},
        {"Origin": f"http://localhost:{port}"},  # another place than the one it is asked at
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "empty"},
    ):
        assert served.post("/v1/chat/completions", body, **headers) == 403, headers
        assert served.request("GET", "/props", **headers)[0] == 403, headers
    assert served.predicted() == before


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
def test_this_computer_is_answered_by_all_its_names(host: str, served: Served) -> None:
    port = urlsplit(served.address).port
    if host == "[::1]" and not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    with urllib.request.urlopen(f"http://{host}:{port}/v1/models") as answer:
        assert json.load(answer)["data"][0]["id"] == "demo.gguf"
    request = urllib.request.Request(f"http://{host}:{port}/health", headers={"Origin": f"http://{host}:{port}"})
    with urllib.request.urlopen(request) as answer:
        assert answer.headers.get("Access-Control-Allow-Origin") is None


def test_where_the_file_lies_is_not_told(served: Served, demo: Path) -> None:
    for path in ("/props", "/v1/models", "/", "/metrics", "/slots", "/lora-adapters"):
        assert str(demo.parent).encode() not in served.request("GET", path)[1]
    assert json.loads(served.request("GET", "/props")[1])["model_path"] == "demo.gguf"


def test_llama_cpp_answers_nobody_but_the_door(served: Served) -> None:
    (engine,) = psutil.Process(served.process.pid).children()
    (inside,) = {c.laddr.port for c in engine.net_connections() if c.status == psutil.CONN_LISTEN}
    direct = Served(served.process, f"http://127.0.0.1:{inside}")
    assert direct.request("GET", "/props")[0] == 401 and direct.post("/v1/chat/completions", b"{}") == 401


def test_a_body_over_the_limit_is_refused_before_llama_cpp_hears_of_it(served: Served) -> None:
    (engine,) = psutil.Process(served.process.pid).children()
    resident_bytes, seconds = engine.memory_info().rss, sum(engine.cpu_times()[:2])
    long = {"messages": [{"role": "user", "content": "a " * 10_000_000}]}
    assert served.post("/v1/chat/completions", json.dumps(long).encode()) == 413
    assert engine.memory_info().rss - resident_bytes < 10 << 20 and sum(engine.cpu_times()[:2]) - seconds < 1
    assert served.answer("Still there?")


@pytest.mark.parametrize("full_speed", [[], ["--full-speed"]])
def test_a_client_that_sends_no_more_gets_its_answer(full_speed: list[str], serve: Callable[..., Served]) -> None:
    served = serve("--port", "0", *full_speed)
    place = urlsplit(served.address)
    body = json.dumps({"messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body)
    with socket.create_connection((place.hostname, place.port), timeout=60) as connection:
        connection.sendall(head + body)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while piece := connection.recv(1 << 16):
            answer += piece
    assert answer.startswith(b"HTTP/1.1 200") and b'"choices"' in answer
    assert served.request("GET", "/props", Host="evil.example")[0] == 403  # at full speed as well


def test_it_listens_to_this_computer_alone(served: Served) -> None:
    (engine,) = psutil.Process(served.process.pid).children()
    assert {c.laddr.ip for c in engine.net_connections() if c.laddr} == {"127.0.0.1"}


def test_a_port_that_is_taken_is_told(served: Served, demo: Path, run_thriftbit: RunThriftbit) -> None:
    result = run_thriftbit("serve", demo, "--port", str(urlsplit(served.address).port))
    assert result.returncode == 1 and re.search(r"port \d+ of 127\.0\.0\.1 cannot be used", result.stderr)


def test_of_two_on_one_port_the_second_says_so_before_it_loads(
    demo: Path, thriftbit_environment: dict[str, str]
) -> None:
    """Started at the same moment, when neither listens yet"""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-P", "-m", "thriftbit", "serve", str(demo), "--port", str(port), "--threads", "1"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    both = [subprocess.Popen([*command, *more], env=thriftbit_environment, **pipes) for more in ([], ["--full-speed"])]
    while all(each.poll() is None for each in both):
        time.sleep(0.1)
    winner, loser = sorted(both, key=lambda each: each.poll() is not None)
    said = loser.communicate()[0]
    assert loser.returncode == 1 and f"port {port} of 127.0.0.1 cannot be used" in said and "Traceback" not in said
    winner.terminate()
    assert "Traceback" not in winner.communicate(timeout=60)[0]


@pytest.mark.parametrize("path", ["/v1/embeddings", "/embeddings", "/v1/rerank", "/props"])
def test_what_it_does_not_offer_is_told_without_options_that_it_has_not(path: str, served: Served) -> None:
    status, answer = served.request("POST", path, b'{"input": "x", "query": "x", "documents": ["y"]}')
    assert status == 501 and "It offers nothing else" in json.loads(answer)["error"]["message"] and b"--" not in answer


def test_a_body_that_comes_slowly_outlives_the_idle_time_and_is_never_a_request(serve: Callable[..., Served]) -> None:
    served = serve("--port", "0", "--unload-after", "0.02")
    place = urlsplit(served.address)
    inner = b"GET /props HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(inner)
    with socket.create_connection((place.hostname, place.port), timeout=60) as connection:
        connection.sendall(head)
        while psutil.Process(served.process.pid).children():  # until the model is unloaded
            time.sleep(0.1)
        connection.sendall(inner)
        answer = connection.recv(1 << 16)
    assert re.match(rb"HTTP/1\.1 (400|500)", answer) and b"model_path" not in answer


def test_elsewhere_takes_a_key(demo: Path, run_thriftbit: RunThriftbit) -> None:
    result = run_thriftbit("serve", demo, "--host", "0.0.0.0")
    assert result.returncode == 2 and "give an --api-key" in result.stderr


def test_without_the_key_nobody_is_answered(serve: Callable[..., Served]) -> None:
    served = serve("--port", "0", "--api-key", "secret")
    with pytest.raises(openai.AuthenticationError):
        served.answer("Where?")
    with openai.OpenAI(base_url=f"{served.address}/v1", api_key="secret") as client:
        assert list(client.models.list())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_when_it_is_told_to(number: int, serve: Callable[..., Served]) -> None:
    served = serve("--port", "0")
    (engine,) = psutil.Process(served.process.pid).children()
    served.process.send_signal(number)
    _, errors = served.process.communicate(timeout=30)
    assert served.process.returncode == 0 and "Traceback" not in errors
    assert not engine.is_running() or engine.status() == psutil.STATUS_ZOMBIE


def test_answers_that_are_being_written_are_finished(serve: Callable[..., Served]) -> None:
    served = serve("--port", "0")
    (engine,) = psutil.Process(served.process.pid).children()
    with ThreadPoolExecutor(1) as user:
        engine.suspend()
        answer = user.submit(served.answer, "Where?", temperature=0)
        time.sleep(1)
        served.process.send_signal(signal.SIGINT)
        engine.resume()
        assert answer.result(30)
    assert served.process.wait(30) == 0


def test_a_server_that_dies_says_so(serve: Callable[..., Served]) -> None:
    served = serve("--port", "0")
    (engine,) = psutil.Process(served.process.pid).children()
    os.kill(engine.pid, signal.SIGKILL)
    _, errors = served.process.communicate(timeout=30)
    assert served.process.returncode == 1 and "the server ended: it ended with signal 9" in errors
