"""A model for other programs: llama.cpp's own server, which speaks OpenAI's protocol and has a web page.

The server is the one that the engine's process brings anyway, with an address that others know. So a crash of it is an
error here, and what is not done here is what llama.cpp does well: protocol, queue, page.

Users share one context: each may take all of it while the others need none, and memory is that of one conversation.
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
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from thriftbit.errors import ThriftbitError, UsageError
from thriftbit.runtime.chat_template import fallback_for, has_template
from thriftbit.runtime.engine import Engine, TemplateError

_MOST_PORT = 65535
_PATIENCE_SECONDS = 2.0  # with our own server, asked about itself
_POLL_SECONDS = 0.2


class Server(Engine):
    """`with Server(path, host="127.0.0.1", port=8080) as server: server.wait()`

    context_tokens: shared by all. users: that are answered at the same time; others wait. api_key: without which nobody
    is answered; "" for none. Inside `with`: address, "http://127.0.0.1:8080".
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
    ) -> None:
        super().__init__(path, context_tokens=context_tokens, threads=threads, chat_template=chat_template)
        check_free(host, port)
        self._key = api_key
        self._settings["serve"] = {"host": host, "port": port, "api_key": api_key, "users": users}

    def wait(self) -> None:
        """Until the server ends, which it does by itself only when it dies: then raises ThriftbitError with the reason.
        Ctrl-C gets through."""
        while True:
            try:
                self._process.wait(_POLL_SECONDS)
            except subprocess.TimeoutExpired:
                continue
            raise ThriftbitError(f"{self.name}: the server ended: {self._last_words()}")

    def finish(self, patience_seconds: float) -> None:
        """Waits until nobody is being answered, but no longer than that."""
        deadline = time.monotonic() + patience_seconds
        while self.answering() and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)

    def answering(self) -> int:
        """-> how many are being answered or wait; 0 if the server does not say"""
        address = urlsplit(self.address)
        assert address.hostname is not None
        connection = http.client.HTTPConnection(address.hostname, address.port, timeout=_PATIENCE_SECONDS)
        try:
            connection.request("GET", "/metrics", headers={"Authorization": f"Bearer {self._key}"})
            metrics = connection.getresponse().read()
        except (OSError, http.client.HTTPException):
            return 0
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
    announce: Callable[[str], None] = lambda message: None,
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
    if not 0 <= port <= _MOST_PORT:
        raise UsageError(f"--port {port}: ports go from 1 to {_MOST_PORT}, and 0 takes one that is free")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as trial:
            if sys.platform != "win32":  # as llama.cpp does: connections that have just ended do not count
                trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(address)
    except socket.gaierror:
        raise ThriftbitError(f"--host {host}: no such address; 127.0.0.1 is this computer alone") from None
    except OSError as error:
        raise ThriftbitError(
            f"port {port} of {host} cannot be used: {error.strerror}. Another server may run there: stop it, or choose "
            "another --port"
        ) from None
