"""Sockets for a server: taken before anything long begins, so that nobody else gets the port meanwhile."""

from __future__ import annotations

import socket
import sys
from contextlib import suppress

from thriftbit.errors import ThriftbitError, UsageError

_MOST_PORT = 65535
_LOOPBACK, _LOOPBACK_6 = "127.0.0.1", "::1"
_WAITING = 128  # connections that the system holds until they are accepted


def check_free(host: str, port: int) -> None:
    """Raises ThriftbitError if nobody can listen there. Port 0 is whichever is free."""
    for each in listening_sockets(host, port):
        each.close()


def listening_sockets(host: str, port: int, *, with_ipv6: bool = False) -> list[socket.socket]:
    """Return sockets that listen already: connections wait in them until somebody accepts them. with_ipv6: for
    127.0.0.1 a second one listens on ::1 where that is possible, as programs that are told "localhost" may try IPv6
    first.
    Raises as `check_free`."""
    if not 0 <= port <= _MOST_PORT:
        raise UsageError(f"--port {port}: ports go from 1 to {_MOST_PORT}, and 0 takes one that is free")
    first = _LOOPBACK if host == "localhost" else host
    try:
        sockets = [_listening(first, port)]
    except socket.gaierror:
        raise ThriftbitError(f"--host {host}: no such address; 127.0.0.1 is this computer alone") from None
    except OSError as error:
        raise ThriftbitError(
            f"port {port} of {host} cannot be used: {error.strerror}. Another server may run there: stop it, or choose "
            "another --port"
        ) from None
    if with_ipv6 and first == _LOOPBACK:
        with suppress(OSError):
            sockets.append(_listening(_LOOPBACK_6, sockets[0].getsockname()[1]))
    return sockets


def _listening(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    bound = socket.socket(family, kind, protocol)
    try:
        if sys.platform == "win32":  # there the other option would let two servers have one port
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:  # connections that have just ended do not keep the port
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6 and host == _LOOPBACK_6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.bind(address)
        bound.listen(_WAITING)
    except OSError:
        bound.close()
        raise
    return bound
