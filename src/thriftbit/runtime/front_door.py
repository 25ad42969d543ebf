"""Where `serve` listens: passes requests on to llama.cpp, and wakes the model for them if it was unloaded.

llama.cpp's server looks at neither Host nor Origin, reads bodies of any size, and knows nothing of memory that other
programs need. So it listens behind this door, on a port that nobody is told, with a key that only the door has. Every
request is checked first (`admission.py`, `http_server.py`), then sent on, over a connection of its own, as it was
understood here: nothing that llama.cpp might read differently gets through.

A model that rests is unloaded by ending llama.cpp's process, which gives back all it took; the door stays open, and
the next request starts the process again. Not while a request is on its way: the door counts those. What only looks
(GET) does not count as use, and /health and /metrics do not wake the model, as programs ask for them all day.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator, MutableMapping, Sequence
from contextlib import contextmanager, suppress
from http import HTTPStatus
from pathlib import PurePosixPath
from typing import Any, Protocol

import h11

from thriftbit.errors import ThriftbitError
from thriftbit.runtime.admission import Admission
from thriftbit.runtime.engine import RENDERING_SECONDS
from thriftbit.runtime.http_server import HttpServer, Receive, Send
from thriftbit.runtime.idle import seconds_between_looks
from thriftbit.runtime.polite import Readings, read_now, reason_to_unload

_logger = logging.getLogger(__name__)

_PIECE_BYTES = 1 << 16
_HEAD_BYTES = 1 << 20
_LOOKS_ONLY = ("GET", "HEAD", "OPTIONS")
_HEALTH, _METRICS = ("/health", "/v1/health"), ("/metrics",)
_PUBLIC = ("/", *_HEALTH)  # without a key; so are the files of llama.cpp's page
_FILES_OF_THE_PAGE = (".html", ".js", ".css", ".json", ".webmanifest", ".svg", ".png", ".ico", ".woff2")
# A service worker would stay in the browser, and answer for whatever listens on this port later
_SERVICE_WORKER = "/sw.js"
# What puts a conversation with the chat template -> what does that and no more
_TRIALS = {
    "/chat/completions": b"/apply-template",
    "/messages": b"/v1/messages/count_tokens",
    "/responses": b"/v1/responses/input_tokens",
    "/apply-template": b"/apply-template",
    "/chat/completions/input_tokens": b"/apply-template",
    "/messages/count_tokens": b"/v1/messages/count_tokens",
    "/responses/input_tokens": b"/v1/responses/input_tokens",
}
_OUT_OF_MEMORY = b"bad_alloc"  # as llama.cpp says it
_GIVEN_UP = (
    "the chat template in the model's file took too much time or memory with this conversation, and is not used any "
    "more; ask again, and the model is loaded without it"
)
# llama.cpp names options of its own program here, which `thriftbit serve` does not have
_NOT_OFFERED = (
    "this server writes text: completions, chat completions, messages and responses. It offers nothing else, such as "
    "embeddings, reranking or changing its settings"
)
_OF_ONE_CONNECTION = (
    *(b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection", b"te"),
    *(b"trailer", b"transfer-encoding", b"upgrade", b"expect"),
)
_REPLACED = (b"host", b"content-length", b"authorization", b"x-api-key", b"origin")
# A page in which a model's words are shown: it may not be shown inside other pages, nor fetch pictures from elsewhere,
# whose addresses could carry off what was said
_PROTECTION = [
    (
        b"content-security-policy",
        b"img-src 'self' data: blob:; media-src 'self' data: blob:; frame-ancestors 'none'; base-uri 'self'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
]


class Behind(Protocol):
    """The model behind the door. resting: whether it is unloaded. inside: where llama.cpp listens otherwise, and
    inside_key, the key that it asks for. has_own_template: whether the file's own chat template is used, which a
    stranger wrote."""

    resting: bool
    inside: tuple[str, int]
    inside_key: str

    @property
    def has_own_template(self) -> bool: ...

    def wake(self) -> None:
        """Loads the model. Raises ThriftbitError"""

    def rest(self) -> None:
        """Unloads the model."""

    def give_up_template(self) -> None:
        """Unloads the model, and from now on uses another chat template."""


class FrontDoor:
    """listening: sockets that listen. key: that clients need; "" for none. unload_after_minutes: None for not until
    memory is short; stays: not even then. It is logged when the model goes and comes."""

    def __init__(
        self,
        listening: Sequence[socket.socket],
        admission: Admission,
        behind: Behind,
        unload_after_minutes: float | None,
        *,
        key: str = "",
        stays: bool = False,
        read: Callable[[], Readings] = read_now,
    ) -> None:
        self._behind = behind
        self._after_minutes = unload_after_minutes
        self._key = key
        self._read = read
        self._used = time.monotonic()
        self.requests = 0  # on their way now, those that only look included
        self.questions = 0  # on their way now
        self.trying = 0  # conversations that the file's own chat template is tried with now
        self._changing = asyncio.Lock()  # while the model is loaded or unloaded
        self._server = HttpServer(listening, self._answer, admission, None if stays else self._watch)

    def open(self) -> None:
        self._server.open()

    def close(self) -> None:
        self._server.close()

    async def _answer(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """The ASGI application"""
        path, method = str(scope["path"]), str(scope["method"])
        if not self._may(path, method, scope["headers"]):
            await _say(send, HTTPStatus.UNAUTHORIZED, "this server asks for an API key, and this is not the right one")
        elif path == _SERVICE_WORKER:
            await _say(send, HTTPStatus.NOT_FOUND, "there is no service worker here")
        elif self._behind.resting and path in _HEALTH:
            await _send_json(send, HTTPStatus.OK, {"status": "ok"})
        elif self._behind.resting and path in _METRICS:
            await _say(send, HTTPStatus.SERVICE_UNAVAILABLE, "the model is unloaded; a question loads it")
        else:
            with self._under_way(asks=method not in _LOOKS_ONLY):
                await self._pass_on(scope, receive, send)

    def _may(self, path: str, method: str, headers: list[tuple[bytes, bytes]]) -> bool:
        """Return whether the request has the key, or needs none."""
        if not self._key or method == "OPTIONS":
            return True
        if method in _LOOKS_ONLY and (path in _PUBLIC or PurePosixPath(path).suffix in _FILES_OF_THE_PAGE):
            return True
        wanted = self._key.encode()
        given = (value.strip() for name, value in headers if name in (b"authorization", b"x-api-key"))
        return any(secrets.compare_digest(each.removeprefix(b"Bearer ").strip(), wanted) for each in given)

    @contextmanager
    def _under_way(self, asks: bool) -> Iterator[None]:
        self.requests += 1
        self.questions += asks
        if asks:
            self._used = time.monotonic()
        try:
            yield
        finally:
            self.requests -= 1
            self.questions -= asks
            if asks:
                self._used = time.monotonic()

    async def _pass_on(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        body = (await receive())["body"]
        started = False
        try:
            await self._awake()
            if not await self._can_be_put(scope, body):
                await _say(send, HTTPStatus.SERVICE_UNAVAILABLE, _GIVEN_UP)
                return
            reader, writer = await asyncio.open_connection(*self._behind.inside)
            try:
                async for event in self._exchange(reader, writer, scope, body):
                    if isinstance(event, h11.Response) and event.status_code == HTTPStatus.NOT_IMPLEMENTED:
                        await _say(send, HTTPStatus.NOT_IMPLEMENTED, _NOT_OFFERED)
                        return
                    if isinstance(event, h11.Response):
                        headers = [each for each in event.headers if _is_for_the_client(each[0])]
                        start = {"type": "http.response.start", "status": event.status_code}
                        await send({**start, "headers": [*headers, *_PROTECTION]})
                        started = True
                    elif isinstance(event, h11.Data):
                        await send({"type": "http.response.body", "body": bytes(event.data), "more_body": True})
                await send({"type": "http.response.body"})
            finally:
                writer.close()  # which ends an answer whose client has gone
        except ThriftbitError as error:
            await _say(send, HTTPStatus.SERVICE_UNAVAILABLE, str(error))
        except (OSError, h11.RemoteProtocolError):
            if started:
                raise ConnectionError from None  # the client sees that its answer broke off
            await _say(send, HTTPStatus.BAD_GATEWAY, "llama.cpp ended before it answered; ask again")

    async def _exchange(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, scope: MutableMapping[str, Any], body: bytes
    ) -> AsyncIterator[Any]:
        """Yield what llama.cpp answers, in h11's events."""
        http = h11.Connection(h11.CLIENT, max_incomplete_event_size=_HEAD_BYTES)
        target = scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")
        kept = [(n, v) for n, v in scope["headers"] if n not in _OF_ONE_CONNECTION and n not in _REPLACED]
        host, port = self._behind.inside
        own = [
            ("Host", f"{host}:{port}"),
            ("Connection", "close"),
            ("Authorization", f"Bearer {self._behind.inside_key}"),
            ("Content-Length", str(len(body))),
        ]
        for sent in (
            h11.Request(method=scope["method"], target=target, headers=[*kept, *own]),
            *([h11.Data(data=body)] if body else []),
            h11.EndOfMessage(),
        ):
            writer.write(http.send(sent) or b"")
        await writer.drain()
        while True:
            event: Any = http.next_event()
            if event is h11.NEED_DATA:
                http.receive_data(await reader.read(_PIECE_BYTES))
                continue
            if isinstance(event, (h11.EndOfMessage, h11.ConnectionClosed)):
                return
            yield event

    async def _can_be_put(self, scope: MutableMapping[str, Any], body: bytes) -> bool:
        """Return whether the file's own chat template, a stranger's program, can put this conversation in time; if not,
        it is given up. Tried before the request itself, because an answer may take minutes, and this must not."""
        path = next((trial for ending, trial in _TRIALS.items() if str(scope["path"]).endswith(ending)), None)
        if scope["method"] != "POST" or path is None or not self._behind.has_own_template:
            return True
        trial = asyncio.create_task(self._try({**scope, "raw_path": path, "query_string": b""}, body))
        return await asyncio.shield(trial)  # to its end, also if the client goes: what loops must be stopped

    async def _try(self, scope: MutableMapping[str, Any], body: bytes) -> bool:
        self.requests += 1
        self.trying += 1
        try:
            async with asyncio.timeout(RENDERING_SECONDS):
                reader, writer = await asyncio.open_connection(*self._behind.inside)
                try:
                    events = [event async for event in self._exchange(reader, writer, scope, body)]
                finally:
                    writer.close()
            if not any(_OUT_OF_MEMORY in event.data for event in events if isinstance(event, h11.Data)):
                return True
        except (OSError, TimeoutError, h11.RemoteProtocolError):
            pass  # it took too long, or llama.cpp crashed
        finally:
            self.requests -= 1
            self.trying -= 1
        async with self._changing:
            if self._behind.has_own_template and not self._behind.resting:
                await asyncio.to_thread(self._behind.give_up_template)
        return False

    async def _awake(self) -> None:
        """Starts llama.cpp if it is not there."""
        async with self._changing:
            if self._behind.resting:
                started = time.monotonic()
                await asyncio.to_thread(self._behind.wake)
                self._used = time.monotonic()
                _logger.info(f"Loaded again, in {self._used - started:.1f} s.")

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(seconds_between_looks(self._after_minutes))
            if self._behind.resting or self.requests or self._changing.locked():
                continue
            now = await asyncio.to_thread(self._read)
            reason = reason_to_unload(time.monotonic() - self._used, self._after_minutes, now)
            if not reason or self.requests or self._changing.locked():
                continue
            async with self._changing:
                with suppress(ThriftbitError):  # should llama.cpp have died meanwhile, `wait` says so
                    await asyncio.to_thread(self._behind.rest)
            _logger.info(f"Unloaded, as {reason}; the next question loads it again.")


def _is_for_the_client(name: bytes) -> bool:
    # what other sites may read is decided here: nothing
    return name not in _OF_ONE_CONNECTION and not name.startswith(b"access-control-")


async def _say(send: Send, status: HTTPStatus, words: str) -> None:
    kind = {HTTPStatus.UNAUTHORIZED: "authentication_error", HTTPStatus.SERVICE_UNAVAILABLE: "unavailable_error"}
    error = {"message": words, "type": kind.get(status, "server_error"), "code": status.value}
    await _send_json(send, status, {"error": error})


async def _send_json(send: Send, status: HTTPStatus, document: object) -> None:
    body = json.dumps(document).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *_PROTECTION]
    await send({"type": "http.response.start", "status": status.value, "headers": headers})
    await send({"type": "http.response.body", "body": body})
