"""A file on a server, read by ranges, so that reading the header of a model of 40 GB takes only a few megabytes.

Requests go through huggingface_hub's own HTTP client, so its proxies and limits apply, and its log-in where the address
is on the Hub. A server that does not know ranges answers with the whole file; then reading stops behind the requested
bytes. Left out: a cache of what was read, because headers are small.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub.errors import HfHubHTTPError, HTTPError  # type: ignore[attr-defined]
from huggingface_hub.utils import get_session, hf_raise_for_status  # type: ignore[attr-defined]

from thriftbit.errors import ThriftbitError
from thriftbit.sources.hub_headers import headers_for

BLOCK_BYTES = 2 << 20
_PATIENCE_SECONDS = 30.0
_PARTIAL_CONTENT = 206


class RemoteFile(io.RawIOBase):
    """url: of the file. name: what errors call it. Opening the file requests its first bytes, which also tells its
    size.

    Raises ThriftbitError where the server cannot be reached or refuses, or gives less than it promised."""

    def __init__(self, url: str, name: str) -> None:
        self._url, self._name, self._position = url, name, 0
        self.size_bytes = 0
        with _plain_errors(name):
            self._first = self._fetch(0, BLOCK_BYTES)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size_bytes}[whence]
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        start, stop = self._position, min(self._position + len(buffer), self.size_bytes)
        if start >= stop:
            return 0
        if stop <= len(self._first):
            content = self._first[start:stop]
        else:
            with _plain_errors(self._name):
                content = self._fetch(start, stop)
        buffer[: len(content)] = content
        self._position += len(content)
        return len(content)

    def _fetch(self, start: int, stop: int) -> bytes:
        headers = {**headers_for(self._url), "Range": f"bytes={start}-{stop - 1}", "Accept-Encoding": "identity"}
        content = bytearray()
        with get_session().stream(
            "GET", self._url, headers=headers, timeout=_PATIENCE_SECONDS, follow_redirects=True
        ) as response:
            if response.status_code >= 400:
                response.read()
            hf_raise_for_status(response)
            skipped = 0 if response.status_code == _PARTIAL_CONTENT else start  # it sends the file from its beginning
            self.size_bytes = self.size_bytes or _size_bytes(response)
            stop = min(stop, self.size_bytes)
            for piece in response.iter_bytes():
                dropped = min(skipped, len(piece))
                skipped -= dropped
                content += piece[dropped:]
                if len(content) >= stop - start:
                    break
        if len(content) < stop - start:
            raise ThriftbitError(f"{self._name}: the server sent {len(content)} bytes of {stop - start}. Try again")
        return bytes(content[: stop - start])


def open_remote(url: str, name: str) -> tuple[io.BufferedReader, int]:
    """Return the file, buffered, and its size in bytes."""
    remote = RemoteFile(url, name)
    return io.BufferedReader(remote, BLOCK_BYTES), remote.size_bytes


def _size_bytes(response: object) -> int:
    headers = response.headers  # type: ignore[attr-defined]
    stated = re.fullmatch(r"bytes \d+-\d+/(\d+)", headers.get("Content-Range", "")) or re.fullmatch(
        r"(\d+)", headers.get("Content-Length", "")
    )
    return int(stated[1]) if stated else 0


@contextmanager
def _plain_errors(name: str) -> Iterator[None]:
    try:
        yield
    except HfHubHTTPError as error:
        status = error.response.status_code
        advice = {
            401: "it is private or gated: accept its terms on its page, then log in with `hf auth login`",
            403: "it is private or gated: accept its terms on its page, then log in with `hf auth login`",
            404: "there is no such file",
            429: "too many requests: wait a few minutes, or log in with `hf auth login`",
        }
        raise ThriftbitError(
            f"{name}: {advice.get(status, f'the server refused ({status}); try again later')}"
        ) from None
    except (HTTPError, OSError) as error:
        reason = str(error).partition("\n")[0].strip() or type(error).__name__
        raise ThriftbitError(f"{name}: cannot be reached ({reason}). Without a network, give a local file") from None
