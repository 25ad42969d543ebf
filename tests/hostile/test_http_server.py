"""Clients that behave badly, against the server that `serve` and `compare` stand behind: real sockets, short limits."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from thriftbit.errors import ThriftbitError
from thriftbit.runtime import http_server
from thriftbit.runtime.admission import admission_at
from thriftbit.runtime.http_server import HttpServer, Receive, Send
from thriftbit.runtime.listening import check_free, listening_sockets

HEAD = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
LONGEST = 100_000


class Echo:
    """Answers with what it was sent; "/slow" after half a second, "/fault" never. seen: the paths asked for."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.cancelled = threading.Event()

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        self.seen.append(scope["path"])
        body = (await receive())["body"]
        if scope["path"] == "/fault":
            raise ValueError("a bug")
        try:
            await asyncio.sleep({"/slow": 0.5, "/endless": 60}.get(scope["path"], 0))
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": body or b"nothing", "more_body": True})
        await send({"type": "http.response.body"})


@pytest.fixture
def echo() -> Echo:
    return Echo()


@pytest.fixture
def port(echo: Echo, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    for name in ("_HEAD_SECONDS", "_BODY_SECONDS", "_IDLE_SECONDS", "_LOOK_SECONDS"):
        monkeypatch.setattr(http_server, name, 0.7 if name != "_LOOK_SECONDS" else 0.05)
    sockets = listening_sockets("127.0.0.1", 0)
    server = HttpServer(sockets, echo, admission_at("127.0.0.1", LONGEST))
    server.open()
    yield sockets[0].getsockname()[1]
    server.close()


def connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=20)


def all_of(connection: socket.socket) -> bytes:
    """Return what comes until the server hangs up."""
    data = b""
    while piece := connection.recv(1 << 16):
        data += piece
    return data


def asked(port: int, request: bytes = HEAD) -> bytes:
    with connected(port) as connection:
        connection.sendall(request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))
        return all_of(connection)


def post(path: bytes, body: bytes, more: bytes = b"") -> bytes:
    return b"POST %b HTTP/1.1\r\nHost: 127.0.0.1\r\n%bContent-Length: %d\r\n\r\n%b" % (path, more, len(body), body)


def test_requests_are_answered_one_by_one_and_all_at_once(port: int, echo: Echo) -> None:
    assert asked(port).startswith(b"HTTP/1.1 200 OK") and asked(port, post(b"/x", b"word")).endswith(b"0\r\n\r\n")
    with connected(port) as connection:
        connection.sendall(post(b"/one", b"1") + post(b"/two", b"2") + HEAD.replace(b"/ ", b"/three "))
        answers = b""
        while answers.count(b"0\r\n\r\n") < 3:
            answers += connection.recv(1 << 16)
    assert answers.count(b"HTTP/1.1 200") == 3 and echo.seen[-3:] == ["/one", "/two", "/three"]


def test_every_request_of_a_connection_is_checked(port: int, echo: Echo) -> None:
    evil = HEAD.replace(b"127.0.0.1", b"evil.example").replace(b"/ ", b"/evil ")
    with connected(port) as connection:
        connection.sendall(post(b"/slow", b"1") + evil + HEAD)
        answers = all_of(connection)
    assert answers.count(b"HTTP/1.1 200") == 1 and answers.count(b"HTTP/1.1 403") == 1 and echo.seen == ["/slow"]


def test_a_body_is_never_taken_for_a_request(port: int, echo: Echo) -> None:
    both = b"POST /a HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    for request in (
        both + HEAD.replace(b"/ ", b"/smuggled "),
        b"POST /b HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 4\r\nContent-Length: 40\r\n\r\nabcd",
        b"POST /c HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : 127.0.0.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
    ):
        with connected(port) as connection:
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)
            all_of(connection)
    assert echo.seen in ([], ["/a"], ["/a", "/smuggled"])  # what h11 reads as two requests, it checks as two
    body = b"GET /inner HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    with connected(port) as connection:
        connection.sendall(post(b"/outer", body)[: -len(body)])
        time.sleep(0.2)
        connection.sendall(body)
        connection.shutdown(socket.SHUT_WR)
        assert body in all_of(connection)
    assert "/inner" not in echo.seen


@pytest.mark.parametrize(
    "garbage",
    [
        *(b"\0" * 100, b"\x16\x03\x01\x02\x00\x01" + b"x" * 500, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\r\n" * 10_000),
        b"GET /" + b"a" * 1_000_000 + b" HTTP/1.1\r\n\r\n",
        HEAD[:-2] + b"X: a\r\n" * 200_000 + b"\r\n",
        post(b"/", b"")[:-7] + b"9" * 30 + b"\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
        os.urandom(5000),
    ],
    ids=["zeros", "tls", "http2", "lines", "long-line", "many-headers", "length", "chunk", "random"],
)
def test_what_is_not_http_is_refused_and_survived(garbage: bytes, port: int, echo: Echo) -> None:
    with connected(port) as connection:
        try:
            connection.sendall(garbage)
            answer = all_of(connection)
        except ConnectionError:
            answer = b""
    assert (not answer or answer.startswith((b"HTTP/1.1 4", b"HTTP/1.1 5"))) and not echo.seen
    assert asked(port).startswith(b"HTTP/1.1 200")


def test_a_long_body_is_refused_before_it_is_read(port: int, echo: Echo) -> None:
    head = b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\n%b\r\n\r\n"
    with connected(port) as connection:
        connection.sendall(head % b"Content-Length: 100000000")
        answer = all_of(connection)
    assert answer.startswith(b"HTTP/1.1 413") and b"up to 100,000 bytes" in answer
    with connected(port) as connection:
        connection.sendall(head % b"Content-Length: 100000000\r\nExpect: 100-continue")
        assert b"100 Continue" not in (answer := all_of(connection)) and answer.startswith(b"HTTP/1.1 413")
    with connected(port) as connection:  # without saying how long it is
        connection.sendall(head % b"Transfer-Encoding: chunked" + b"8000\r\n%b\r\n" % (b"x" * 0x8000) * 3)
        connection.sendall(b"8000\r\n" + b"x" * 0x8000)
        assert b"HTTP/1.1 413" in all_of(connection)
    assert not echo.seen


def test_a_client_that_asks_before_it_sends_is_told_to(port: int) -> None:
    with connected(port) as connection:
        request = post(b"/", b"word", b"Expect: 100-continue\r\nConnection: close\r\n")
        connection.sendall(request[:-4])
        assert connection.recv(100).startswith(b"HTTP/1.1 100")
        connection.sendall(request[-4:])
        assert b"word" in all_of(connection)


@pytest.mark.parametrize("begun", [b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\n", post(b"/", b"x" * 1000)[:-900]])
def test_clients_that_trickle_have_until_the_limit(begun: bytes, port: int) -> None:
    with connected(port) as connection:
        connection.sendall(begun)
        started, answer = time.monotonic(), b""
        connection.settimeout(0.1)
        while not answer and time.monotonic() - started < 20:
            try:
                connection.sendall(b"X")
                answer = connection.recv(1000)
            except TimeoutError:
                continue
    assert answer.startswith(b"HTTP/1.1 408")


def test_a_client_that_says_nothing_is_hung_up_on(port: int) -> None:
    with connected(port) as connection:
        assert all_of(connection) == b""


def test_a_client_that_sends_no_more_gets_its_answer(port: int) -> None:
    with connected(port) as connection:
        connection.sendall(post(b"/slow", b"word"))
        connection.shutdown(socket.SHUT_WR)
        assert b"word" in all_of(connection)


@pytest.mark.parametrize("how", ["closed", "reset"])
def test_an_answer_whose_client_has_gone_is_not_written(how: str, port: int, echo: Echo) -> None:
    connection = connected(port)
    connection.sendall(post(b"/endless", b"word"))
    while "/endless" not in echo.seen:
        time.sleep(0.01)
    if how == "reset":
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
    assert echo.cancelled.wait(20)


def test_a_fault_is_answered_and_logged_a_few_times_only(
    port: int, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "_MOST_FAULTS_LOGGED", 3)
    with caplog.at_level(logging.ERROR):
        for _ in range(10):
            assert asked(port, post(b"/fault", b"")).startswith(b"HTTP/1.1 500")
    assert len(caplog.records) == 3


def test_many_who_wait_do_not_keep_others_out(
    echo: Echo, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(http_server, "_MOST_CONNECTIONS", 10)
    sockets = listening_sockets("127.0.0.1", 0)
    server = HttpServer(sockets, echo, admission_at("127.0.0.1", LONGEST))
    server.open()
    port = sockets[0].getsockname()[1]
    try:
        idle = [connected(port) for _ in range(50)]
        for each in idle[::2]:
            each.sendall(b"POST / HTTP/1.1\r\nX: ")
        assert asked(port).startswith(b"HTTP/1.1 200")
        for each in idle:
            each.close()
    finally:
        server.close()
    assert not caplog.records


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files as Linux shows them")
def test_where_open_files_run_out_little_is_said_and_it_recovers(port: int, caplog: pytest.LogCaptureFixture) -> None:
    import resource

    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    connections = [connected(port) for _ in range(5)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(list(Path("/proc/self/fd").iterdir())) + 1, limits[1]))
    try:
        waiting = socket.socket()
        waiting.connect(("127.0.0.1", port))
        time.sleep(0.5)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    waiting.sendall(HEAD)
    assert waiting.recv(100).startswith(b"HTTP/1.1 200")
    for each in (*connections, waiting):
        each.close()
    assert len(caplog.records) < 5


def test_errors_are_json_that_says_why(port: int) -> None:
    head, _, body = asked(port, HEAD.replace(b"127.0.0.1", b"evil.example")).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 403") and "own address" in json.loads(body)["error"]["message"]


def test_a_port_belongs_to_one_server_from_the_start() -> None:
    sockets = listening_sockets("127.0.0.1", 0, with_ipv6=True)
    port = sockets[0].getsockname()[1]
    with pytest.raises(ThriftbitError, match=f"port {port} of 127.0.0.1 cannot be used"):
        check_free("127.0.0.1", port)
    assert {each.getsockname()[1] for each in sockets} == {port}
    for each in sockets:
        each.close()
    check_free("127.0.0.1", port)
