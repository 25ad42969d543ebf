"""Who may use the page: whoever has its address, on this computer, and nobody else.

The page listens on 127.0.0.1. Pages of other sites in the same browser are kept out by `runtime/admission.py`, before
anything here hears of them. Other users of this computer reach 127.0.0.1 as well, and are kept out by a key that is
part of the address we print.

The key stands behind the # of the address. Browsers keep that part to themselves: it is in no log, no Referer and no
request but those of the page's own script, which sends it as a header. A cookie would not do, since browsers send it to
every port of 127.0.0.1, other users' ports included. When we open the browser ourselves, other users may see its
command line; so the address given to it holds a ticket, which can be exchanged for the key once.

Left out: encryption, as nothing leaves the computer; and users who may read all memory anyway.
"""

from __future__ import annotations

import secrets
import threading

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
        """Return what can be exchanged for the key, once."""
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
    """An application whose private part takes the key, and what a browser is told with every answer."""

    def __init__(self, application: ASGIApp, keys: Keys) -> None:
        self._application = application
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                more = [(name.lower().encode(), value.encode()) for name, value in _HEADERS.items()]
                message["headers"] = [*message.get("headers", ()), *more]
            await send(message)

        if self._opens(scope["path"], Headers(scope=scope).get("authorization", "")):
            await self._application(scope, receive, send_guarded)
        else:
            words = "open the address that `thriftbit compare` printed in the terminal"
            await JSONResponse({"error": words}, 401)(scope, receive, send_guarded)

    def _opens(self, path: str, authorization: str) -> bool:
        return not path.startswith(PRIVATE) or path == ENTER or self._keys.opened_by(authorization)
