"""Where `serve` listens when the model behind it may be unloaded: passes everything on, and wakes the model for it.

llama.cpp's server can put its model to sleep by itself, and loses or crashes on a question that comes while it does; it
also knows nothing of memory that others need. So its whole process ends instead, which gives back all it took, and this
door stays open: bytes go to llama.cpp and back as they are, and the first that come after it ended start it anew.
Nobody's connection is cut by that.

Of HTTP it knows the first word of a request: what only looks (GET) does not count as use, and /health and /metrics do
not wake the model, as programs ask for them all day. Everything happens in one thread, so that no byte is passed on
while the model is being unloaded.
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from typing import Protocol

from thriftbit.errors import ThriftbitError
from thriftbit.runtime.idle import seconds_between_looks
from thriftbit.runtime.polite import Readings, read_now, reason_to_unload

_PIECE_BYTES = 1 << 16
_LOOKS_ONLY = (b"GET ", b"HEAD ", b"OPTIONS ")
_HEALTH, _METRICS = b"GET /health", b"GET /metrics"


class Behind(Protocol):
    """The model behind the door. resting: unloaded. inside: where llama.cpp listens while it is not."""

    resting: bool
    inside: tuple[str, int]

    def wake(self) -> None:
        """Loads the model. Raises ThriftbitError"""

    def rest(self) -> None:
        """Unloads it."""

    def answering(self) -> int | None:
        """-> how many questions it is at; None if it does not say"""


class FrontDoor:
    """listening: a socket that is bound. unload_after_minutes: None for not until memory is short. announce: is told,
    by another thread, when the model goes and comes."""

    def __init__(
        self,
        listening: socket.socket,
        behind: Behind,
        unload_after_minutes: float | None,
        announce: Callable[[str], None] = lambda message: None,
        read: Callable[[], Readings] = read_now,
    ) -> None:
        self._listening = listening
        self._behind = behind
        self._after_minutes = unload_after_minutes
        self._announce = announce
        self._read = read
        self._used = time.monotonic()
        self._era = 0  # so many times it was unloaded; connections to llama.cpp end with theirs
        self._waking = asyncio.Lock()
        self._ending = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._open(),), daemon=True)

    def open(self) -> None:
        self._listening.listen()
        self._thread.start()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._ending.set)
        self._thread.join()
        self._loop.close()

    async def _open(self) -> None:
        server = await asyncio.start_server(self._visit, sock=self._listening)
        watching = asyncio.create_task(self._watch())
        await self._ending.wait()
        server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        watching.cancel()
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _visit(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection from outside, until either side hangs up"""
        visit = _Visit(writer)
        with suppress(ConnectionError, asyncio.CancelledError):
            while request := await reader.read(_PIECE_BYTES):
                if not await self._pass_on(request, visit):
                    break
        visit.hang_up()
        writer.close()

    async def _pass_on(self, request: bytes, visit: _Visit) -> bool:
        """-> whether the visit goes on"""
        visit.asks = not request.startswith(_LOOKS_ONLY)
        if self._behind.resting and request.startswith((_HEALTH, _METRICS)):
            asleep = "the model is unloaded; a question loads it"
            visit.outside.write(
                _answer(HTTPStatus.OK, {"status": "ok"}) if request.startswith(_HEALTH) else _no(asleep)
            )
            return False
        if visit.asks:
            self._used = time.monotonic()
        if visit.era != self._era:
            visit.hang_up()
            try:
                reader, visit.inside = await self._reach()
            except (ThriftbitError, OSError) as error:
                visit.outside.write(_no(str(error)))
                return False
            visit.era = self._era
            visit.answers = asyncio.create_task(self._pass_back(reader, visit))
        assert visit.inside is not None
        visit.inside.write(request)
        await visit.inside.drain()
        return True

    async def _pass_back(self, reader: asyncio.StreamReader, visit: _Visit) -> None:
        era = self._era
        with suppress(ConnectionError):
            while answer := await reader.read(_PIECE_BYTES):
                if visit.asks:
                    self._used = time.monotonic()
                visit.outside.write(answer)
                await visit.outside.drain()
        if era == self._era:  # it hung up by itself; whoever was connected when it was unloaded stays
            visit.outside.close()

    async def _reach(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """-> a connection to llama.cpp, which is started if it is not there"""
        async with self._waking:
            if self._behind.resting:
                started = time.monotonic()
                await asyncio.to_thread(self._behind.wake)
                self._used = time.monotonic()
                self._announce(f"Loaded again, in {self._used - started:.1f} s.")
        return await asyncio.open_connection(*self._behind.inside)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(seconds_between_looks(self._after_minutes))
            used = self._used
            if self._behind.resting or self._waking.locked():
                continue
            now = await asyncio.to_thread(self._read)
            reason = reason_to_unload(time.monotonic() - used, self._after_minutes, now)
            # What it does not say counts as use: a long prompt keeps it from saying anything
            if not reason or await asyncio.to_thread(self._behind.answering) != 0:
                continue
            if used == self._used and not self._behind.resting and not self._waking.locked():
                self._era += 1
                self._behind.rest()
                self._announce(f"Unloaded, as {reason}; the next question loads it again.")


class _Visit:
    """asks: whether what it sent last is more than a look. inside: its connection to llama.cpp, of that era."""

    def __init__(self, outside: asyncio.StreamWriter) -> None:
        self.outside = outside
        self.asks = False
        self.inside: asyncio.StreamWriter | None = None
        self.era = -1
        self.answers: asyncio.Task[None] | None = None

    def hang_up(self) -> None:
        if self.answers is not None:
            self.answers.cancel()
        if self.inside is not None:
            self.inside.close()


def _no(reason: str) -> bytes:
    return _answer(HTTPStatus.SERVICE_UNAVAILABLE, {"error": {"message": reason, "type": "unavailable_error"}})


def _answer(status: HTTPStatus, document: object) -> bytes:
    body = json.dumps(document).encode()
    head = f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body
