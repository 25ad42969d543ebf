"""Commands that run for an assistant, and what it is told of their answers."""

from __future__ import annotations

import json
import time

import anyio
import psutil
import pytest

from thriftbit.assistant.running import run_command
from thriftbit.assistant.wording import describe_measurements
from unit.report.rows import LEVELS, example_rows


async def tell_nobody(what: str, fraction: float) -> None:
    pass


def test_a_request_that_is_cancelled_ends_its_command(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "src")
    before = {child.pid for child in psutil.Process().children()}

    async def cancelled() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run_command, "explain", [], ["Q4_K_M"], tell_nobody)
            while not {child.pid for child in psutil.Process().children()} - before:
                await anyio.sleep(0.005)
            tasks.cancel_scope.cancel()

    begun = time.monotonic()
    anyio.run(cancelled)
    assert {child.pid for child in psutil.Process().children()} <= before and time.monotonic() - begun < 10


def test_measurements_are_told_in_sentences() -> None:
    text = describe_measurements({"rows": [json.loads(row.to_json()) for row in example_rows()]})
    lines = text.splitlines()
    assert len(lines) == len(LEVELS) + 1 and lines[0].startswith("Q8_0 is 47% smaller than the original, writes 1.8×")
    assert "the same next word as the original" in lines[-1]
