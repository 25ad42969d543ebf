"""Running what a stranger wrote in a process of its own, with limits of time and memory.

A chat template is a program. Its language keeps it from the system, but lets it loop for days, build texts of any size,
and nest so deeply that the program which reads it crashes. In a child process all of that ends at a limit, and what the
child says is an answer or nothing.

Linux holds the child to its memory itself; elsewhere the parent looks twenty times a second and ends a child that grew.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import psutil

_LOOK_SECONDS = 0.05
_ANSWER_BYTES = 64 << 20


def run_confined(
    module: str, question: bytes, *, patience_seconds: float, memory_bytes: int, environment: Mapping[str, str] = {}
) -> bytes | None:
    """Return what `python -m module` wrote to its standard output when it was given `question`; None if it ended
    otherwise.

    memory_bytes: resident, of the child. The child limits itself further with `limit_this_process`."""
    with tempfile.TemporaryFile() as asked, tempfile.TemporaryFile() as answered:
        asked.write(question)
        asked.seek(0)
        # -P: nothing in the current directory may pass for a module of ours
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", module],
            stdin=asked,
            stdout=answered,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **environment},
        )
        try:
            ended_well = _ends_in_time(child, patience_seconds, memory_bytes)
        finally:
            child.kill()
            child.wait()
        answered.seek(0)
        return answered.read(_ANSWER_BYTES) if ended_well else None


def _ends_in_time(child: subprocess.Popen[bytes], patience_seconds: float, memory_bytes: int) -> bool:
    deadline = time.monotonic() + patience_seconds
    while time.monotonic() < deadline:
        try:
            return child.wait(_LOOK_SECONDS) == 0
        except subprocess.TimeoutExpired:
            if resident_bytes(child.pid) > memory_bytes:
                return False
    return False


def resident_bytes(process_id: int) -> int:
    """Return memory that the process holds now; 0 if it has ended."""
    try:
        return int(psutil.Process(process_id).memory_info().rss)
    except psutil.Error:
        return 0


def limit_this_process(more_bytes: int, processor_seconds: int | None) -> None:
    """From now on this process gets at most that much more memory, and at most that much more time of the processor;
    None for no limit of time. Where a system has no such limit, nothing happens."""
    if sys.platform == "win32":
        return
    import resource

    wanted = {resource.RLIMIT_CORE: 0}  # a crash leaves no image of the memory behind
    if processor_seconds is not None:
        used = resource.getrusage(resource.RUSAGE_SELF)
        wanted[resource.RLIMIT_CPU] = int(used.ru_utime + used.ru_stime) + 1 + processor_seconds
    if data_bytes := _data_bytes():
        wanted[resource.RLIMIT_DATA] = data_bytes + more_bytes
    for kind, most in wanted.items():
        _, hard = resource.getrlimit(kind)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        try:
            resource.setrlimit(kind, (most, hard))
        except (ValueError, OSError):  # macOS does not let every kind be set
            continue


def _data_bytes() -> int:
    """Return what counts against RLIMIT_DATA on Linux: private memory that
    can be written, files left out; 0 elsewhere."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmData:")), 0)
