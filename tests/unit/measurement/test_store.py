"""The file that rows are kept in: several processes at once, crashes, and lines that are none."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from thriftbit.errors import ThriftbitError
from thriftbit.measurement.measurement import Measurement, Subject
from thriftbit.measurement.store import append, read, store_path

ROW = Measurement(what="file_size", value=1.0, subject=Subject("model", "Q8_0", "0123", 1_000, 8.5))
WRITERS, CALLS, ROWS_A_CALL = 4, 20, 3

WRITE = """
import sys
from dataclasses import replace
from pathlib import Path
from thriftbit.measurement.measurement import Measurement
from thriftbit.measurement.store import append
path, writer, calls, rows_a_call, padding = Path(sys.argv[1]), *map(int, sys.argv[2:])
row = Measurement.from_json(sys.stdin.read())
print("ready", flush=True)
for call in range(calls):
    append([replace(row, value=float(call), note=f"{writer}:{row_number}", command="x" * padding)
            for row_number in range(rows_a_call)], path)
"""


def start_writer(
    path: Path, environment: dict[str, str], writer: int, calls: int, rows_a_call: int, padding: int
) -> subprocess.Popen[str]:
    numbers = [str(number) for number in (writer, calls, rows_a_call, padding)]
    process = subprocess.Popen(
        [sys.executable, "-c", WRITE, str(path), *numbers],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(ROW.to_json())
    process.stdin.close()
    assert process.stdout.readline() == "ready\n"
    process.stdout.close()
    return process


def test_rows_come_back_in_their_order(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "measurements.jsonl"
    rows = [replace(ROW, value=float(number), command="größe\u2028\n") for number in range(5)]
    append(rows[:2], path)
    append([], path)
    append(rows[2:], path)
    assert read(path) == (rows, [])


def test_the_store_is_in_the_users_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THRIFTBIT_CACHE", str(tmp_path / "cache"))
    assert store_path() == tmp_path / "cache" / "measurements.jsonl"
    append([ROW])
    assert read(store_path()) == ([ROW], [])
    monkeypatch.setenv("THRIFTBIT_CACHE", "")
    assert "thriftbit" in str(store_path()) and store_path().is_absolute()


def test_processes_append_at_once_and_lose_nothing(tmp_path: Path, thriftbit_environment: dict[str, str]) -> None:
    path = tmp_path / "measurements.jsonl"
    writers = [
        start_writer(path, thriftbit_environment, writer, CALLS, ROWS_A_CALL, padding=30_000)
        for writer in range(WRITERS)
    ]
    assert [writer.wait() for writer in writers] == [0] * WRITERS
    rows, problems = read(path)
    assert problems == []
    assert len(rows) == WRITERS * CALLS * ROWS_A_CALL
    for start in range(0, len(rows), ROWS_A_CALL):  # the rows of a call stand together
        call = rows[start : start + ROWS_A_CALL]
        assert len({(row.note.partition(":")[0], row.value) for row in call}) == 1
        assert [row.note.partition(":")[2] for row in call] == [str(number) for number in range(ROWS_A_CALL)]
    for writer in range(WRITERS):  # and the calls of a process in their order
        values = [row.value for row in rows if row.note == f"{writer}:0"]
        assert values == [float(call) for call in range(CALLS)]


def test_what_a_crash_left_of_a_line_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "measurements.jsonl"
    append([ROW], path)
    with path.open("ab") as file:
        file.write(ROW.to_json().encode()[:-40])
    append([ROW, ROW], path)
    append([ROW], path)
    rows, problems = read(path)
    assert rows == [ROW] * 4
    assert problems == [f"{path}, line 2: is not JSON"]


def test_a_killed_writer_leaves_one_bad_line_at_most(tmp_path: Path, thriftbit_environment: dict[str, str]) -> None:
    path = tmp_path / "measurements.jsonl"
    writer = start_writer(path, thriftbit_environment, 0, calls=1_000_000, rows_a_call=2, padding=2_000_000)
    while not path.exists() or path.stat().st_size < 10_000_000:
        time.sleep(0.01)
    writer.kill()
    writer.wait()
    before, _ = read(path)
    append([ROW], path)
    rows, problems = read(path)
    assert rows == [*before, ROW] and before
    assert len(problems) <= 1


def test_a_last_line_without_its_end_is_not_lost(tmp_path: Path) -> None:
    path = tmp_path / "measurements.jsonl"
    path.write_text(ROW.to_json(), encoding="utf-8")  # as an editor may leave it
    append([ROW], path)
    assert read(path) == ([ROW, ROW], [])


def test_bad_lines_cost_nothing_but_themselves(tmp_path: Path) -> None:
    path = tmp_path / "measurements.jsonl"
    good = ROW.to_json().encode()
    path.write_bytes(
        b"\n".join([b"garbage", good, b"", b"\xff\xfe", good + b"\r", b'{"schema": 9}', b"[" * 100_000, good])
    )
    rows, problems = read(path)
    assert rows == [ROW] * 3
    assert problems == [
        f"{path}, line 1: is not JSON",
        f"{path}, line 4: is not UTF-8",
        f"{path}, line 6: has schema 9; this version of thriftbit reads 1",
        f"{path}, line 7: is not JSON",
    ]


def test_names_that_are_no_text_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "measurements.jsonl"
    odd = replace(ROW, subject=replace(ROW.subject, name=b"caf\xe9.gguf".decode(errors="surrogateescape")))
    append([odd], path)
    assert read(path) == ([odd], [])


def test_where_nothing_can_be_kept(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ThriftbitError, match="measurements cannot be kept"):
        append([ROW], tmp_path / "file" / "measurements.jsonl")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ThriftbitError, match=r"folder: measurements cannot be kept"):
        append([ROW], tmp_path / "folder")


def test_what_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ThriftbitError, match=r"none\.jsonl does not exist"):
        read(tmp_path / "none.jsonl")
    with pytest.raises(ThriftbitError, match="is not a regular file"):
        read(tmp_path)
