"""A model for other programs: llama.cpp's own server, which speaks OpenAI's protocol and has a web page.

The server is the one that the engine's process brings anyway, with an address that others know. So a crash of it is an
error here, and what is not done here is what llama.cpp does well: protocol, queue, page.

Users share one context: each may take all of it while the others need none, and memory is that of one conversation.
A server that may unload its model listens through a door of its own (`front_door.py`); at full speed it listens itself.
Left out: encryption; whoever needs it across a network has a proxy for it.
"""

from __future__ import annotations

import http.client
import ipaddress
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from thriftbit.errors import ThriftbitError, UsageError
from thriftbit.runtime.chat_template import fallback_for, has_template
from thriftbit.runtime.engine import Engine, TemplateError
from thriftbit.runtime.front_door import FrontDoor
from thriftbit.runtime.polite import UNLOAD_AFTER_MINUTES, check_room, read_now

_MOST_PORT = 65535
_PATIENCE_SECONDS = 2.0  # with our own server, asked about itself
_POLL_SECONDS = 0.2
_LOOPBACK = "127.0.0.1"

Announce = Callable[[str], None]


class Server(Engine):
    """`with Server(path, host="127.0.0.1", port=8080) as server: server.wait()`

    context_tokens: shared by all. users: that are answered at the same time; others wait. api_key: without which nobody
    is answered; "" for none. polite: as for Engine, and a model that nobody uses is unloaded when memory gets short.
    unload_after_minutes: that nobody asked anything; the next question loads it again. None for never. announce: is
    told of both. Inside `with`: address, "http://127.0.0.1:8080"; resting, whether the model is unloaded.
    Raises ThriftbitError, before anything is loaded, if the address cannot be had.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        host: str,
        port: int,
        api_key: str = "",
        context_tokens: int = 8192,
        users: int = 4,
        threads: int | None = None,
        chat_template: str | None = None,
        polite: bool = True,
        unload_after_minutes: float | None = UNLOAD_AFTER_MINUTES,
        announce: Announce = lambda message: None,
    ) -> None:
        super().__init__(
            path, context_tokens=context_tokens, threads=threads, chat_template=chat_template, polite=polite
        )
        check_free(host, port)
        self._host, self._port, self._key = host, port, api_key
        self._users = users
        self._polite, self._unload_after_minutes, self._announce = polite, unload_after_minutes, announce
        self._front: FrontDoor | None = None
        self._needed_bytes = 0  # that the model took before it was unloaded
        self.resting = False

    def __enter__(self) -> Self:
        if not self._polite and self._unload_after_minutes is None:
            self._listen_at(self._host, self._port, f"http://{self._host}:{self._port}")
            self._start()
            return self
        with ExitStack() as stack:
            listening = stack.enter_context(bound_socket(self._host, self._port))
            host, port = listening.getsockname()[:2]
            address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
            self._listen_at(_LOOPBACK, 0, address)
            self._start()
            self.address = address
            self._front = FrontDoor(listening, self, self._unload_after_minutes, self._announce)
            self._front.open()
            stack.pop_all()
        return self

    def wake(self) -> None:
        """Loads the model again. Raises ThriftbitError if it has no room any more."""
        if self._polite:
            check_room(self.path.name, self._needed_bytes, read_now())
        address = self.address
        self._start()
        self.address = address
        self.resting = False

    def rest(self) -> None:
        """Unloads the model: llama.cpp ends, and what asks for it is answered when it is back."""
        with suppress(ThriftbitError):  # should it have died meanwhile, it is as good as unloaded
            self._needed_bytes = self.memory().peak_bytes
        self.resting = True
        self._end_process()

    def close(self) -> None:
        if self._front is not None:
            self._front.close()
            self._front = None
        super().close()

    def _start(self) -> None:
        super().__enter__()
        inside = urlsplit(self.address)
        assert inside.hostname is not None and inside.port is not None
        self.inside = (inside.hostname, inside.port)

    def _listen_at(self, host: str, port: int, origin: str) -> None:
        self._settings["serve"] = {
            "host": host,
            "port": port,
            "api_key": self._key,
            "users": self._users,
            "origin": origin,
        }

    def wait(self) -> None:
        """Until the server ends, which it does by itself only when it dies: then raises ThriftbitError with the reason.
        Ctrl-C gets through."""
        while True:
            process = self._process
            try:
                process.wait(_POLL_SECONDS)
            except subprocess.TimeoutExpired:
                continue
            if self.resting or process is not self._process:
                time.sleep(_POLL_SECONDS)
                continue
            raise ThriftbitError(f"{self.name}: the server ended: {self._last_words()}")

    def finish(self, patience_seconds: float) -> None:
        """Waits until nobody is being answered, but no longer than that."""
        deadline = time.monotonic() + patience_seconds
        while self.answering() != 0 and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)

    def answering(self) -> int | None:
        """-> how many are being answered or wait; None if the server does not say"""
        if self.resting:
            return 0
        connection = http.client.HTTPConnection(*self.inside, timeout=_PATIENCE_SECONDS)
        try:
            connection.request("GET", "/metrics", headers={"Authorization": f"Bearer {self._key}"})
            metrics = connection.getresponse().read()
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()
        counts = re.findall(rb"^llamacpp:requests_(?:processing|deferred) (\d+)", metrics, re.MULTILINE)
        return sum(map(int, counts))


@contextmanager
def serving(
    path: Path,
    *,
    host: str,
    port: int,
    api_key: str = "",
    context_tokens: int = 8192,
    users: int = 4,
    threads: int | None = None,
    polite: bool = True,
    unload_after_minutes: float | None = UNLOAD_AFTER_MINUTES,
    announce: Announce = lambda message: None,
) -> Iterator[Server]:
    """-> the server, with another chat template where the file's is missing or llama.cpp cannot use it, which is
    announced. What can be given is as for Server."""

    def server(template: str | None) -> Server:
        return Server(
            path,
            host=host,
            port=port,
            api_key=api_key,
            context_tokens=context_tokens,
            users=users,
            threads=threads,
            chat_template=template,
            polite=polite,
            unload_after_minutes=unload_after_minutes,
            announce=announce,
        )

    fallback = fallback_for(path)
    with ExitStack() as stack:
        if not has_template(path):
            announce(f"Note: {path.name} says nothing of how to chat with it: {fallback.words}.")
            yield stack.enter_context(server(fallback.template))
            return
        try:
            running = stack.enter_context(server(None))
        except TemplateError:
            announce(f"Note: {path.name} has a chat template that llama.cpp cannot use: {fallback.words}.")
            running = stack.enter_context(server(fallback.template))
        yield running


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_free(host: str, port: int) -> None:
    """Raises ThriftbitError if nobody can listen there. Port 0 is whichever is free."""
    bound_socket(host, port).close()


def bound_socket(host: str, port: int) -> socket.socket:
    """Raises as `check_free`."""
    if not 0 <= port <= _MOST_PORT:
        raise UsageError(f"--port {port}: ports go from 1 to {_MOST_PORT}, and 0 takes one that is free")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
        try:
            if sys.platform != "win32":  # as llama.cpp does: connections that have just ended do not count
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
        except OSError:
            bound.close()
            raise
    except socket.gaierror:
        raise ThriftbitError(f"--host {host}: no such address; 127.0.0.1 is this computer alone") from None
    except OSError as error:
        raise ThriftbitError(
            f"port {port} of {host} cannot be used: {error.strerror}. Another server may run there: stop it, or choose "
            "another --port"
        ) from None
    return bound
