"""Downloads of large files: if a connection breaks off, the next one continues where it stopped."""

from __future__ import annotations

import logging
import time
from typing import BinaryIO

from huggingface_hub import constants
from huggingface_hub.errors import HfHubHTTPError, HTTPError  # type: ignore[attr-defined]
from huggingface_hub.utils import get_session, hf_raise_for_status, tqdm  # type: ignore[attr-defined]

from thriftbit.errors import ThriftbitError
from thriftbit.sources.hub_headers import headers_for

_logger = logging.getLogger(__name__)

_MOST_FAILURES = 5  # in a row, without a byte between them
_LONGEST_NAME = 40  # characters, so that room is left for the progress bar
_PARTIAL_CONTENT = 206
_TRANSIENT = (408, 429, 500, 502, 503, 504)


def append_rest(url: str, stream: BinaryIO, size_bytes: int, name: str) -> None:
    """Download the part of a file that is missing, behind what is in `stream` already.

    url: of the file. stream: positioned at its end. size_bytes: of the whole file. name: for the progress bar.
    A broken connection is tried again, up to five times without progress. Then the last error is raised: HTTPError, or
    ThriftbitError if the server sends less than it should. Raises HfHubHTTPError at once if the server refuses, and
    OSError if the disk is full.
    """
    failures = 0
    options = {"total": size_bytes, "initial": stream.tell(), "unit": "B", "unit_scale": True, "disable": None}
    with tqdm(desc=name[-_LONGEST_NAME:], **options) as bar:  # type: ignore[no-untyped-call]
        while stream.tell() < size_bytes:
            before = stream.tell()
            try:
                _append(url, stream, size_bytes, bar)
                error: Exception = ThriftbitError(f"{name}: the server sent less than {size_bytes} bytes. Try again")
            except HTTPError as broken:
                if isinstance(broken, HfHubHTTPError) and broken.response.status_code not in _TRANSIENT:
                    raise
                error = broken
            if stream.tell() >= size_bytes:
                return
            failures = 1 if stream.tell() > before else failures + 1
            if failures > _MOST_FAILURES:
                raise error
            _logger.debug(f"{name}: the connection broke off ({error}); trying again.")
            time.sleep(2 ** (failures - 1))


def _append(url: str, stream: BinaryIO, size_bytes: int, bar: tqdm) -> None:
    """Add to the file what one connection sends."""
    headers = {**headers_for(url), "Accept-Encoding": "identity"}
    if stream.tell():
        headers["Range"] = f"bytes={stream.tell()}-"
    patience = constants.HF_HUB_DOWNLOAD_TIMEOUT
    with get_session().stream("GET", url, headers=headers, timeout=patience, follow_redirects=True) as response:
        if response.status_code >= 400:
            response.read()
        hf_raise_for_status(response)
        if stream.tell() and response.status_code != _PARTIAL_CONTENT:  # the server sends the file from its beginning
            bar.update(-stream.tell())
            stream.seek(0)
            stream.truncate()
        for piece in response.iter_bytes():
            kept = piece[: size_bytes - stream.tell()]
            stream.write(kept)
            bar.update(len(kept))
            if stream.tell() >= size_bytes:
                return
