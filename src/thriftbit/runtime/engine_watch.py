"""Watches llama.cpp's process from outside, and ends it when it takes more than its model can explain.

llama.cpp reads what strangers wrote: files, chat templates, grammars, schemas. Its process keeps harm away from ours,
but not from the computer: it can fill the memory, or compute for ever while it loads. So its memory is looked at four
times a second, and a load that neither reads nor grows for minutes is ended.
"""

from __future__ import annotations

import subprocess
import threading
import time
from contextlib import suppress
from glob import escape
from pathlib import Path

import psutil

from thriftbit.errors import ThriftbitError
from thriftbit.machine.kv_cache import cache_bytes, layer_caches
from thriftbit.runtime.confined import resident_bytes
from thriftbit.sizes import describe_bytes
from thriftbit.sources.gguf_source import ARCHITECTURE, PART_NAME, read_parts

_LOOK_SECONDS = 0.25
_STILL_SECONDS = 300.0  # a load that neither reads nor grows for so long does not end
# Weights are mapped, and may be copied once into another order; caches may be held twice while they grow
_TIMES = 2
_UNKNOWN_CACHE_BYTES = 1 << 20  # for each token, where it is not known what a family keeps of a text
_CHECKPOINTS = 32  # of what windows and recurrent layers hold, as llama.cpp keeps them to go back to
_BESIDE_BYTES = 2 << 30  # the program, its vocabulary, room to compute, and requests


def explained_bytes(path: Path, context_tokens: int) -> int:
    """Return more memory than a model can take with that much context, by its file; a limit, not an estimate."""
    try:
        parts = read_parts(path)
        files_bytes, metadata = sum(part.file_size_bytes for part in parts), parts[0].metadata
        layers = layer_caches(str(metadata.get(ARCHITECTURE, "")), metadata)
    except ThriftbitError:  # llama.cpp may read more than we do
        part = PART_NAME.fullmatch(path.name)
        files = path.parent.glob(f"{escape(part['prefix'])}-*.gguf") if part else [path]
        files_bytes, layers = sum(file.stat().st_size for file in files), None
    if layers is None:
        cache = _UNKNOWN_CACHE_BYTES * context_tokens
    else:
        kept = [layer for layer in layers if layer.window_tokens or layer.state_numbers]
        cache = cache_bytes(layers, context_tokens) + _CHECKPOINTS * cache_bytes(kept, context_tokens)
    return _TIMES * (files_bytes + cache) + _BESIDE_BYTES


class EngineWatch:
    """`watch = EngineWatch(process, most_bytes)`, then `watch.loaded()` when it has loaded, and `watch.end()`

    reason: why it ended the process, in words; "" if it did not.
    """

    def __init__(self, process: subprocess.Popen[bytes], most_bytes: int) -> None:
        self.reason = ""
        self._process, self._most_bytes = process, most_bytes
        self._loading = True
        self._ended = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def loaded(self) -> None:
        self._loading = False

    def end(self) -> None:
        self._ended.set()

    def _watch(self) -> None:
        seen: object = None
        moved = time.monotonic()
        while not self._ended.wait(_LOOK_SECONDS) and self._process.poll() is None:
            held_bytes = resident_bytes(self._process.pid)
            if held_bytes > self._most_bytes:
                self._stop(
                    f"it took {describe_bytes(held_bytes)} of memory, more than the model can explain, and was ended"
                )
            if self._loading:
                state = (held_bytes, _read_bytes(self._process.pid))
                if state != seen:
                    seen, moved = state, time.monotonic()
                elif time.monotonic() - moved > _STILL_SECONDS:
                    self._stop(f"it did nothing for {_STILL_SECONDS / 60:.0f} minutes while it loaded, and was ended")

    def _stop(self, reason: str) -> None:
        self.reason = reason
        self._process.kill()


def _read_bytes(process_id: int) -> int | None:
    with suppress(psutil.Error, AttributeError):  # macOS does not count them
        return int(psutil.Process(process_id).io_counters().read_bytes)
    return None
