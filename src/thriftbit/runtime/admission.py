"""Which requests a server on this computer answers: decided by the head alone, before a body is read.

The problem: every page that is open in a browser on this computer can send requests to 127.0.0.1. Most of them it can
send without asking, and a page whose name its owner lets point to 127.0.0.1 (DNS rebinding) can read the answers too.

The choice: the `Host` header must be an address or a name of this computer, which a page from elsewhere cannot have;
the `Origin` header, where a browser sends one, must be that same place; and where a browser says that a request comes
from another site (`Sec-Fetch-Site`), only following a link to a page is allowed. Programs send neither of the last two
headers, and are answered.

Left out: other users of this computer, whom no header gives away. For them there are keys.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus

Headers = Sequence[tuple[bytes, bytes]]  # names in lower case

_HOST = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[a-z0-9_.\-]+)(?::\d{1,5})?")
_METHODS = (b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS")
_LOCAL_NAME = "localhost"


@dataclass(frozen=True)
class Refusal:
    """words: a sentence for whoever sent the request."""

    status: HTTPStatus
    words: str


@dataclass(frozen=True)
class Admission:
    """names: of this computer, beside its addresses, in lower case. is_public: whether other computers can reach it;
    if not, only addresses of this computer alone (127.0.0.1, ::1) count. most_body_bytes: of one request."""

    names: frozenset[str]
    is_public: bool
    most_body_bytes: int

    def refusal(self, method: bytes, target: bytes, headers: Headers) -> Refusal | None:
        """Return why the request is not answered; None if it is."""
        if method not in _METHODS:
            return Refusal(HTTPStatus.METHOD_NOT_ALLOWED, "this server does not know that method")
        if not target.startswith(b"/"):
            return Refusal(HTTPStatus.BAD_REQUEST, "the address of a request begins with /")
        return self._stranger(method, headers) or self._too_long(headers)

    def _stranger(self, method: bytes, headers: Headers) -> Refusal | None:
        hosts, origins = _values(headers, b"host"), _values(headers, b"origin")
        if len(hosts) != 1 or not self._is_ours(hosts[0]):
            return Refusal(HTTPStatus.FORBIDDEN, "this server answers to its own address only, such as 127.0.0.1")
        if origins and origins not in ([f"http://{hosts[0]}"], [f"https://{hosts[0]}"]):
            return Refusal(HTTPStatus.FORBIDDEN, "pages of other sites are not answered")
        if _values(headers, b"sec-fetch-site") in (["cross-site"], ["same-site"]):
            follows_link = (
                method in (b"GET", b"HEAD")
                and _values(headers, b"sec-fetch-mode") == ["navigate"]
                and _values(headers, b"sec-fetch-dest") == ["document"]
            )
            if not follows_link:
                return Refusal(HTTPStatus.FORBIDDEN, "pages of other sites are not answered")
        return None

    def _too_long(self, headers: Headers) -> Refusal | None:
        lengths = _values(headers, b"content-length")
        if lengths and not all(length.isdigit() for length in lengths):
            return Refusal(HTTPStatus.BAD_REQUEST, "Content-Length is not a number")
        return self.too_long_body(max((int(length[:20]) for length in lengths), default=0))

    def too_long_body(self, size_bytes: int) -> Refusal | None:
        """size_bytes: what was announced, or what has come so far"""
        if size_bytes <= self.most_body_bytes:
            return None
        words = f"the request is too long: up to {self.most_body_bytes:,} bytes are read"
        return Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, words)

    def _is_ours(self, host: str) -> bool:
        found = _HOST.fullmatch(host)
        if found is None:
            return False
        name = found["name"]
        try:
            address = ipaddress.ip_address(name.strip("[]"))
        except ValueError:
            return name in self.names
        return self.is_public or address.is_loopback


def admission_at(host: str, most_body_bytes: int) -> Admission:
    """host: where the server listens. Returns what it answers: at 127.0.0.1 this computer alone, elsewhere also other
    computers, which know it by its addresses and by its own names."""
    if is_loopback(host):
        return Admission(frozenset({_LOCAL_NAME}), False, most_body_bytes)
    own = socket.gethostname().lower()
    names = {_LOCAL_NAME, host.lower(), own, f"{own.partition('.')[0]}.local", socket.getfqdn().lower()}
    return Admission(frozenset(names), True, most_body_bytes)


def is_loopback(host: str) -> bool:
    """Return whether only this computer can reach what listens there."""
    if host.lower() == _LOCAL_NAME:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _values(headers: Headers, name: bytes) -> list[str]:
    return [value.decode("latin-1").strip().lower() for key, value in headers if key == name]
