"""The page over HTTP: three files that are the same for everybody, and a session for those with the key.

The page gets one long answer, a line of JSON whenever something is new: first everything, then what has changed. So it
has one way to come by what it shows, and a reload or a lost connection is nothing special.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from thriftbit.errors import ThriftbitError, UsageError
from thriftbit.report.page import TEMPLATES
from thriftbit.side_by_side.access import ENTER, Keys
from thriftbit.side_by_side.session import Session

_FILES = Path(__file__).with_name("page")
_PAUSE_SECONDS = 0.08  # between two lines: quicker than this nobody reads
_HEARTBEAT_SECONDS = 20.0  # a line that says nothing; without it, who has gone would not be noticed


def application(session: Session, keys: Keys) -> Starlette:
    async def enter(request: Request) -> Response:
        key = keys.exchange((await _said(request)).get("ticket"))
        if key is None:
            return JSONResponse({"error": "this address was used already; the one in the terminal works"}, 401)
        return JSONResponse({"key": key})

    async def ask(request: Request) -> Response:
        said = await _said(request)
        asked = await run_in_threadpool(
            session.ask,
            _of(said, "question", str),
            blind=_of(said, "blind", bool),
            against=_of(said, "against", int),
            temperature=_number(said, "temperature"),
            longest=_of(said, "longest", int),
        )
        return JSONResponse({"number": asked.number})

    async def stop(request: Request) -> Response:
        await run_in_threadpool(session.stop)
        return JSONResponse({})

    async def vote(request: Request) -> Response:
        said = await _said(request)
        picked = said.get("picked")
        await run_in_threadpool(
            session.vote, _of(said, "number", int), None if picked is None else _of(said, "picked", int)
        )
        return JSONResponse({})

    async def changes(request: Request) -> Response:
        return _Changes(session)

    return Starlette(
        routes=[
            Route("/", _file(_FILES / "compare.html", "text/html")),
            Route("/page.css", _file(TEMPLATES / "page.css", "text/css")),
            Route("/page.js", _file(TEMPLATES / "page.js", "text/javascript")),
            Route("/compare.css", _file(_FILES / "compare.css", "text/css")),
            Route("/compare.js", _file(_FILES / "compare.js", "text/javascript")),
            Route(ENTER, enter, methods=["POST"]),
            Route("/api/ask", ask, methods=["POST"]),
            Route("/api/stop", stop, methods=["POST"]),
            Route("/api/vote", vote, methods=["POST"]),
            Route("/api/changes", changes),
        ],
        exception_handlers={ThriftbitError: _told},
    )


class _Changes(StreamingResponse):
    """Stops listening to the session as soon as the client is gone. Without `aclosing`, a client that goes away while
    a line is being sent to it leaves its listener behind until Python collects garbage."""

    def __init__(self, session: Session) -> None:
        self._lines = _changes(session)
        super().__init__(self._lines, media_type="application/x-ndjson")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._lines):
            await super().__call__(scope, receive, send)


async def _changes(session: Session) -> AsyncGenerator[str, None]:
    loop, news = asyncio.get_running_loop(), asyncio.Event()
    end = session.listen(lambda: loop.call_soon_threadsafe(news.set))
    try:
        revision, changed = session.changes(since=0)
        yield _line({**session.known(), **changed})
        while not session.is_closed:
            try:
                await asyncio.wait_for(news.wait(), _HEARTBEAT_SECONDS)
            except TimeoutError:
                yield "{}\n"
                continue
            news.clear()
            revision, changed = session.changes(since=revision)
            yield _line(changed)
            await asyncio.sleep(_PAUSE_SECONDS)
    finally:
        end()


def _line(document: dict[str, Any]) -> str:
    return json.dumps(document) + "\n"


async def _said(request: Request) -> dict[str, Any]:
    try:
        document = json.loads(await request.body())
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise UsageError("that is no JSON object")
    return document


def _of(said: dict[str, Any], name: str, *kinds: type) -> Any:
    value = said.get(name)
    if type(value) not in kinds:
        raise UsageError(f"{name} is missing, or has the wrong type")
    return value


def _number(said: dict[str, Any], name: str) -> float:
    try:
        return float(_of(said, name, int, float))
    except OverflowError:  # a whole number of hundreds of digits
        raise UsageError(f"{name} is larger than any number that is used here") from None


async def _told(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, 409 if isinstance(error, UsageError) else 500)


def _file(path: Path, media_type: str) -> Any:
    async def answer(request: Request) -> Response:
        return FileResponse(path, media_type=media_type)

    return answer
