"""Whether a client that sends no more still listens for its answer, or has gone.

On the wire both look the same: the end of what it sends. Only the answer to the next thing that we send tells them
apart, and before an answer there is nothing to send. For a client on the same computer Linux knows: its table of
connections shows the client's end, which belongs to no open file once the client has closed it.

Where that cannot be seen, whoever has stopped sending counts as gone after a while.
"""

from __future__ import annotations

import ipaddress
import socket
import sys
from pathlib import Path

_TABLES = {4: Path("/proc/net/tcp"), 6: Path("/proc/net/tcp6")}
_LOCAL_ADDRESS, _REMOTE_ADDRESS, _FILE = 1, 2, 9  # columns

Address = tuple[str, int]


def is_gone(client: Address, server: Address) -> bool | None:
    """client, server: the two ends of a connection. Returns whether nobody holds the client's end; None if unknown."""
    address = ipaddress.ip_address(client[0].partition("%")[0])
    if sys.platform != "linux" or not address.is_loopback:
        return None
    try:
        lines = _TABLES[address.version].read_text().splitlines()[1:]
    except OSError:
        return None
    wanted = (_as_in_table(client), _as_in_table(server))
    for columns in map(str.split, lines):
        if (columns[_LOCAL_ADDRESS], columns[_REMOTE_ADDRESS]) == wanted:
            return columns[_FILE] == "0"
    return True


def _as_in_table(address: Address) -> str:
    """Return the address as Linux prints it: words of 32 bits in the machine's order, then the port."""
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    packed = socket.inet_pton(family, address[0].partition("%")[0])
    words = (packed[start : start + 4] for start in range(0, len(packed), 4))
    return "".join(f"{int.from_bytes(word, sys.byteorder):08X}" for word in words) + f":{address[1]:04X}"
