"""Who may use the page: whoever has its address, on this computer, and nobody else.

The page listens on 127.0.0.1, where three kinds of strangers are left. Pages from elsewhere in the same browser are
kept out by their Origin; a name of theirs that they let point to 127.0.0.1 by the Host it is asked for; and other users
of this computer, who reach 127.0.0.1 as well, by a key that is in the address we print.

It stands behind the # of the address, which browsers keep to themselves: it is in no log, no Referer and no request but
those of the page's own script, which sends it as a header. A cookie would not do, since browsers send it to every port
of 127.0.0.1, other users' included. When we open the browser ourselves, other users may see its command line; so the
address given to it holds a ticket, which is good for one exchange against the key.

Left out: encryption, as nothing leaves the computer; and users who may read all memory anyway.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Mapping

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

PRIVATE = "/api/"
ENTER = "/api/enter"
MOST_BODY_BYTES = 200_000
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Keys:
    """key: opens everything, for as long as the page runs."""

    def __init__(self) -> None:
        self.key = secrets.token_urlsafe(24)
        self._tickets: set[str] = set()
        self._lock = threading.Lock()

    def ticket(self) -> str:
        """-> what can be exchanged for the key, once"""
        ticket = secrets.token_urlsafe(24)
        with self._lock:
            self._tickets.add(ticket)
        return ticket

    def exchange(self, ticket: object) -> str | None:
        with self._lock:
            if not isinstance(ticket, str) or ticket not in self._tickets:
                return None
            self._tickets.remove(ticket)
        return self.key

    def opened_by(self, authorization: str) -> bool:
        return secrets.compare_digest(authorization.encode(), f"Bearer {self.key}".encode())


class Guarded:
    """An application that strangers do not get to, and what a browser is told with every answer."""

    def __init__(self, application: ASGIApp, keys: Keys, port: int) -> None:
        self._application = application
        self._keys = keys
        self._hosts = {f"127.0.0.1:{port}", f"localhost:{port}"} | ({"127.0.0.1", "localhost"} if port == 80 else set())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._application(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                more = [(name.lower().encode(), value.encode()) for name, value in _HEADERS.items()]
                message["headers"] = [*message.get("headers", ()), *more]
            await send(message)

        refused = self._refused(scope["path"], Headers(scope=scope))
        if refused:
            status, words = refused
            await JSONResponse({"error": words}, status)(scope, receive, send_guarded)
        else:
            await self._application(scope, receive, send_guarded)

    def _refused(self, path: str, headers: Mapping[str, str]) -> tuple[int, str] | None:
        """-> the status and why, of what is not answered"""
        host, origin = headers.get("host", ""), headers.get("origin")
        if host not in self._hosts:
            return 403, "this page is for 127.0.0.1 alone"
        if origin is not None and origin != f"http://{host}":
            return 403, "pages from elsewhere are not answered"
        if not headers.get("content-length", "0").isdigit() or "transfer-encoding" in headers:
            return 411, "say how long it is"
        if int(headers.get("content-length", "0")) > MOST_BODY_BYTES:
            return 413, "that is too long"
        if path.startswith(PRIVATE) and path != ENTER and not self._keys.opened_by(headers.get("authorization", "")):
            return 401, "open the address that `thriftbit compare` printed in the terminal"
        return None
