"""How fast the disk with the models is read: how long the first loading of a model takes.

A file is written, forced onto the disk, and read without the system's cache: on Linux the cache is told to forget it,
on macOS reading bypasses it. Windows offers Python neither, so there is no number, rather than the speed of memory. A
file system in memory has no number either.

The host of a virtual disk may have a cache that nobody inside can bypass, and a container's file system may be
something else below. The number is what loading a model would get.
"""

from __future__ import annotations

import mmap
import os
import sys
import time
from pathlib import Path

import numpy as np

from thriftbit.machine.bandwidth import spread_of
from thriftbit.machine.profile import Spread

_CHUNK_BYTES = 8 << 20
_CHUNKS_IN_A_SAMPLE = 4
_FEWEST_SAMPLES = 3
_MAC_NO_CACHE = 48  # fcntl's F_NOCACHE


def disk_read_rate(folder: Path, size_bytes: int, patience_seconds: float) -> Spread | None:
    """Return bytes per second; None where the cache cannot be bypassed, or the disk is too slow for a few samples in
    time.

    folder: on that disk; a file of `size_bytes` is there meanwhile. patience_seconds: roughly how long it may take.
    """
    path = folder / "disk-speed"
    deadline = time.monotonic() + patience_seconds
    try:
        if not _can_go_around() or not _write(path, size_bytes, deadline):
            return None
        rates = _read(path, deadline)
        return spread_of(rates) if len(rates) >= _FEWEST_SAMPLES else None
    except OSError:
        return None
    finally:
        path.unlink(missing_ok=True)


def _can_go_around() -> bool:
    return sys.platform == "darwin" or hasattr(os, "posix_fadvise")


def _write(path: Path, size_bytes: int, deadline: float) -> bool:
    """Return whether there was enough time. The content cannot be compressed, as weights cannot."""
    chunk = np.random.default_rng(0).bytes(_CHUNK_BYTES)
    with path.open("wb") as file:
        for _ in range(max(_FEWEST_SAMPLES * _CHUNKS_IN_A_SAMPLE, size_bytes // _CHUNK_BYTES)):
            file.write(chunk)
            if time.monotonic() > deadline:
                return False
        file.flush()
        os.fsync(file.fileno())
    return True


def _read(path: Path, deadline: float) -> list[float]:
    rates = []
    with path.open("rb", buffering=0) as file, mmap.mmap(-1, _CHUNK_BYTES) as buffer:
        _forget(file.fileno())
        while time.monotonic() < deadline:
            started, size_bytes = time.perf_counter(), 0
            for _ in range(_CHUNKS_IN_A_SAMPLE):
                size_bytes += file.readinto(memoryview(buffer))
            if size_bytes < _CHUNKS_IN_A_SAMPLE * _CHUNK_BYTES:
                break
            rates.append(size_bytes / (time.perf_counter() - started))
    return rates


def _forget(file: int) -> None:
    if sys.platform == "darwin":
        import fcntl

        fcntl.fcntl(file, _MAC_NO_CACHE, 1)
    else:
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
