"""A small HTTP server for a page or a model on this computer: checks every request, and waits for nobody for long.

It speaks HTTP through h11 and hands each request to an ASGI application, whole: head and body have come before the
application hears of it. So a client that sends slowly, or never finishes, holds a connection and nothing else.

Everything that a client can waste has a limit: the time for a head, for a body and for taking an answer; the size of
both; the number of connections. Where connections run out, those go that have waited longest without a request.
A client that stops sending after its request still gets its answer, as long as somebody is there to read it.

The choice: uvicorn has no deadline for a half-sent request, drops clients that half-close, and at the limit of open
files asyncio's own way of accepting writes thousands of lines a second into the log.
Left out: encryption, HTTP/2, web sockets.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, MutableMapping, Sequence
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote

import h11

from thriftbit.runtime.admission import Admission, Refusal
from thriftbit.runtime.peer import is_gone

# What an ASGI application is, in the terms of the ASGI specification
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

_PIECE_BYTES = 1 << 16
_HEAD_BYTES = 1 << 16
_IDLE_SECONDS = 30.0  # between two requests
_HEAD_SECONDS, _BODY_SECONDS = 10.0, 30.0
_TAKING_SECONDS = 60.0  # in which a client takes nothing of its answer
_LINGER_SECONDS = 1.0  # for a client to read why it was refused, although it still sends
_ENDING_SECONDS = 1.0  # for an application whose client has gone
_LOOK_SECONDS = 1.0  # whether a client that sends no more is still there
_UNSEEN_SECONDS = 20.0  # for its answer, if that cannot be seen
_ACCEPT_PAUSE_SECONDS = 0.1
_MOST_CONNECTIONS, _FEWEST_CONNECTIONS, _OTHER_FILES = 256, 8, 64
_MOST_FAULTS_LOGGED = 20

_log = logging.getLogger(__name__)


class _HungUpError(Exception):
    """The client has gone, or has not kept to its time."""


class _RefusedError(Exception):
    def __init__(self, refusal: Refusal) -> None:
        self.refusal = refusal


class HttpServer:
    """`server = HttpServer(listening, application, admission)`, then `server.open()` and `server.close()`

    listening: sockets that listen. beside: runs in the same thread of its own while the server is open.
    """

    def __init__(
        self,
        listening: Sequence[socket.socket],
        application: Application,
        admission: Admission,
        beside: Callable[[], Coroutine[Any, Any, None]] | None = None,
    ) -> None:
        self._listening = listening
        self.application = application
        self.admission = admission
        self._beside = beside
        self._connections: dict[asyncio.Task[None], _Connection] = {}
        self._most_connections = _connections_possible()
        self._faults = 0
        self._ending = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(lambda loop, context: self.report(context.get("exception")))
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._run(),), daemon=True)

    def open(self) -> None:
        for each in self._listening:
            each.setblocking(False)
        self._thread.start()

    def close(self) -> None:
        """Ends all connections, whatever they are at."""
        self._loop.call_soon_threadsafe(self._ending.set)
        self._thread.join()
        self._loop.close()
        for each in self._listening:
            each.close()

    def report(self, fault: BaseException | None) -> None:
        """Logs a fault of ours; only the first few, as a client may be able to repeat it."""
        if fault is not None and self._faults < _MOST_FAULTS_LOGGED:
            self._faults += 1
            _log.error("A request failed", exc_info=fault)

    async def _run(self) -> None:
        tasks = [asyncio.create_task(self._accept(each)) for each in self._listening]
        if self._beside is not None:
            tasks.append(asyncio.create_task(self._beside()))
        await self._ending.wait()
        tasks += self._connections
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _accept(self, listening: socket.socket) -> None:
        while True:
            try:
                accepted, _ = await asyncio.get_running_loop().sock_accept(listening)
            except OSError:  # no more open files, for one: a pause, and room made by those that only wait
                self._make_room()
                await asyncio.sleep(_ACCEPT_PAUSE_SECONDS)
                continue
            if len(self._connections) >= self._most_connections and not self._make_room():
                accepted.close()
                continue
            connection = _Connection(self, accepted)
            task = asyncio.create_task(connection.run())
            self._connections[task] = connection
            task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._connections.pop(task).close_unless_begun()

    def _make_room(self) -> bool:
        """Ends the connection that has waited longest without a whole request. Returns whether there was one."""
        for task, connection in self._connections.items():  # the oldest first
            if connection.is_waiting and not task.cancelling():
                task.cancel()
                return True
        return False


class _Connection:
    """is_waiting: for a whole request, and answering none."""

    def __init__(self, server: HttpServer, accepted: socket.socket) -> None:
        self._server = server
        self._accepted = accepted
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=_HEAD_BYTES)
        self._sends_no_more = False
        self._has_begun = False
        self.is_waiting = True

    def close_unless_begun(self) -> None:
        """For a connection that was ended before its task ran; otherwise the task closes it."""
        if not self._has_begun:
            self._accepted.close()

    async def run(self) -> None:
        self._has_begun = True
        try:
            async with _streams(self._accepted) as (self._reader, self._writer):
                with suppress(_HungUpError, OSError):  # the client is gone, or late
                    while await self._request():
                        pass
        except asyncio.CancelledError:
            return  # to make room, or at the end: nobody waits for this task's outcome
        except Exception as fault:
            self._server.report(fault)

    async def _request(self) -> bool:
        """One request and its answer. Returns whether another may follow."""
        try:
            request = await self._head()
            if refusal := self._server.admission.refusal(request.method, request.target, request.headers):
                raise _RefusedError(refusal)
            body = await self._body()
        except _RefusedError as refused:
            await self._refuse(refused.refusal)
            return False
        except h11.RemoteProtocolError as error:
            await self._refuse(Refusal(HTTPStatus(error.error_status_hint), "this is not HTTP as it should be"))
            return False
        self.is_waiting = False
        await self._answer(request, body)
        self.is_waiting = True
        if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            return False
        self._http.start_next_cycle()
        return True

    async def _head(self) -> h11.Request:
        if not self._http.trailing_data[0]:
            async with asyncio.timeout(_IDLE_SECONDS):
                await self._read()
        try:
            async with asyncio.timeout(_HEAD_SECONDS):
                event = await self._next_event()
        except TimeoutError:
            raise _RefusedError(_late("head", _HEAD_SECONDS)) from None
        if not isinstance(event, h11.Request):
            raise _HungUpError
        return event

    async def _body(self) -> bytes:
        if self._http.they_are_waiting_for_100_continue:
            await self._write(h11.InformationalResponse(status_code=100, headers=[]))
        pieces, size_bytes = [], 0
        try:
            async with asyncio.timeout(_BODY_SECONDS):
                while isinstance(event := await self._next_event(), h11.Data):
                    size_bytes += len(event.data)
                    if refusal := self._server.admission.too_long_body(size_bytes):
                        raise _RefusedError(refusal)
                    pieces.append(bytes(event.data))
        except TimeoutError:
            raise _RefusedError(_late("body", _BODY_SECONDS)) from None
        if not isinstance(event, h11.EndOfMessage):
            raise _HungUpError
        return b"".join(pieces)

    async def _next_event(self) -> Any:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            await self._read()
        return event

    async def _read(self) -> None:
        data = await self._reader.read(_PIECE_BYTES)
        self._sends_no_more = not data
        self._http.receive_data(data)

    async def _answer(self, request: h11.Request, body: bytes) -> None:
        exchange = _Exchange(self, request, body)
        answering = asyncio.create_task(exchange.run(self._server.application))
        leaving = asyncio.create_task(self._until_gone())
        try:
            await asyncio.wait((answering, leaving), return_when=asyncio.FIRST_COMPLETED)
            if leaving.done():
                exchange.gone.set()
                await asyncio.wait((answering,), timeout=_ENDING_SECONDS)
        finally:
            for task in (answering, leaving):
                task.cancel()
            outcome, _ = await asyncio.gather(answering, leaving, return_exceptions=True)
        if isinstance(outcome, (_HungUpError, ConnectionError, TimeoutError)) or exchange.gone.is_set():
            raise _HungUpError
        if self._writer.is_closing():  # the client hung up in the middle; what that broke is not a fault of ours
            raise _HungUpError
        if isinstance(outcome, BaseException):
            self._server.report(outcome)
        if self._http.our_state is h11.IDLE or self._http.our_state is h11.SEND_RESPONSE:
            await self._refuse(Refusal(HTTPStatus.INTERNAL_SERVER_ERROR, "Thriftbit failed; its terminal says how"))

    async def _until_gone(self) -> None:
        """While a request is answered: keeps what comes after it, and returns when nobody is there any more"""
        kept_bytes = 0
        while not self._sends_no_more and kept_bytes < _HEAD_BYTES:
            data = await self._reader.read(_PIECE_BYTES)
            kept_bytes += len(data)
            self._sends_no_more = not data
            self._http.receive_data(data)
        client, server = (self._writer.get_extra_info(name)[:2] for name in ("peername", "sockname"))
        stopped = time.monotonic()
        while True:
            gone = await asyncio.to_thread(is_gone, client, server)
            if gone or (gone is None and time.monotonic() - stopped > _UNSEEN_SECONDS):
                return
            await asyncio.sleep(_LOOK_SECONDS)

    async def _refuse(self, refusal: Refusal) -> None:
        """An answer of our own, after which the connection ends; what is still being sent is thrown away meanwhile."""
        if self._http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            raise _HungUpError
        kind = refusal.status.phrase.lower().replace(" ", "_")
        error = {"message": refusal.words, "type": kind, "code": refusal.status.value}
        body = json.dumps({"error": error}).encode()
        headers = [
            ("content-type", "application/json"),
            ("content-length", str(len(body))),
            ("connection", "close"),
        ]
        await self._write(h11.Response(status_code=refusal.status, reason=refusal.status.phrase, headers=headers))
        with suppress(h11.LocalProtocolError):  # an answer to HEAD has no body
            await self._write(h11.Data(data=body))
            await self._write(h11.EndOfMessage())
        if self._writer.can_write_eof():
            self._writer.write_eof()
        async with asyncio.timeout(_LINGER_SECONDS):
            while await self._reader.read(_PIECE_BYTES):
                pass

    async def _write(self, event: Any) -> None:
        data = self._http.send(event)
        if data:
            self._writer.write(data)
            async with asyncio.timeout(_TAKING_SECONDS):
                await self._writer.drain()

    async def send(self, event: Any) -> None:
        await self._write(event)


class _Exchange:
    """One request, as an ASGI application sees it. gone: set when there is nobody to answer any more."""

    def __init__(self, connection: _Connection, request: h11.Request, body: bytes) -> None:
        self._connection, self._request, self._body = connection, request, body
        self._given = False
        self.gone = asyncio.Event()

    async def run(self, application: Application) -> None:
        path, _, query = self._request.target.partition(b"?")
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": self._request.http_version.decode(),
            "method": self._request.method.decode(),
            "scheme": "http",
            "path": unquote(path.decode("latin-1")),
            "raw_path": path,
            "query_string": query,
            "root_path": "",
            "headers": list(self._request.headers),
            "client": None,
            "server": None,
        }
        await application(scope, self._receive, self._send)

    async def _receive(self) -> Message:
        if not self._given:
            self._given = True
            return {"type": "http.request", "body": self._body, "more_body": False}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if self.gone.is_set():
            raise _HungUpError
        if message["type"] == "http.response.start":
            headers = list(message.get("headers", ()))
            reason = HTTPStatus(message["status"]).phrase
            await self._connection.send(h11.Response(status_code=message["status"], reason=reason, headers=headers))
            return
        body = message.get("body", b"")
        if body and self._request.method != b"HEAD":
            await self._connection.send(h11.Data(data=body))
        if not message.get("more_body", False):
            await self._connection.send(h11.EndOfMessage())


@asynccontextmanager
async def _streams(accepted: socket.socket) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    accepted.setblocking(False)
    accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    transport, protocol = await loop.connect_accepted_socket(lambda: asyncio.StreamReaderProtocol(reader), accepted)
    writer = asyncio.StreamWriter(transport, protocol, reader, loop)
    try:
        yield reader, writer
    finally:
        writer.close()


def _late(what: str, seconds: float) -> Refusal:
    return Refusal(HTTPStatus.REQUEST_TIMEOUT, f"the {what} of the request took longer than {seconds:.0f} seconds")


def _connections_possible() -> int:
    """Return how many connections are held at a time; an answer may take a second open file."""
    if sys.platform == "win32":
        return _MOST_CONNECTIONS
    import resource

    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(_FEWEST_CONNECTIONS, min(_MOST_CONNECTIONS, (files - _OTHER_FILES) // 2))
