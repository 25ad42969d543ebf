"""Objects between two processes of ours, over pipes: a pickle, and large arrays beside it as they lie in memory."""

from __future__ import annotations

import pickle
import struct
from typing import Any, BinaryIO

_SIZE = struct.Struct("<Q")


def send(file: BinaryIO, message: Any) -> None:
    """Raises OSError (BrokenPipeError) if nobody reads, and whatever pickle raises, before anything is written."""
    buffers: list[pickle.PickleBuffer] = []
    content = pickle.dumps(message, protocol=5, buffer_callback=buffers.append)
    parts = [memoryview(content), *(buffer.raw() for buffer in buffers)]
    file.write(_SIZE.pack(len(parts)) + b"".join(_SIZE.pack(part.nbytes) for part in parts))
    for part in parts:
        file.write(part)
    file.flush()


def receive(file: BinaryIO) -> Any:
    """Return the next message. Raises EOFError where there is none, or only a part of one."""
    (count,) = _SIZE.unpack(_read(file, _SIZE.size))
    sizes = [_SIZE.unpack(_read(file, _SIZE.size))[0] for _ in range(count)]
    content, *buffers = [_read(file, size) for size in sizes]
    return pickle.loads(content, buffers=buffers)  # both ends are this program


def _read(file: BinaryIO, size: int) -> bytearray:
    content = bytearray(size)
    view, done = memoryview(content), 0
    while done < size:
        count = file.readinto(view[done:])  # type: ignore[attr-defined]
        if not count:
            raise EOFError
        done += count
    return content
