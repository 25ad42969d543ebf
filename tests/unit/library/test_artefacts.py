"""What is kept of models: named by what it is made of, locked while it is made, and never more than the limit."""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from thriftbit.errors import ThriftbitError
from thriftbit.library import artefacts as module
from thriftbit.library.artefacts import MadeOf, artefacts, locked, make_room, read_made_of, remove, trim

BASE = MadeOf("calibration", "a model", {"method": 1, "text": "abc"}, "tiny", 1000)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("THRIFTBIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def kept(number: int, size_bytes: int, model_bytes: int = 1000) -> MadeOf:
    """Return an artefact in the cache, last used at that second."""
    made = replace(BASE, facts={"number": number}, model_bytes=model_bytes)
    made.write(made.folder)
    rest = size_bytes - (made.folder / module.INDEX).stat().st_size
    (made.folder / "data").write_bytes(bytes(rest))
    os.utime(made.folder, (number, number))
    return made


def test_the_name_says_what_it_is_made_of() -> None:
    others = [
        replace(BASE, kind="map"),
        replace(BASE, model="another"),
        replace(BASE, facts={**BASE.facts, "method": 2}),
        replace(BASE, facts={**BASE.facts, "text": "abd"}),
    ]
    assert len({each.folder for each in (BASE, *others)}) == 5
    assert replace(BASE, source="elsewhere", model_bytes=2) == BASE
    BASE.write(BASE.folder)
    found = read_made_of(BASE.folder)
    assert found == BASE and found is not None and (found.source, found.model_bytes) == ("tiny", 1000)
    (BASE.folder / module.INDEX).write_text('{"kind": 3}')
    assert read_made_of(BASE.folder) is None


def test_the_oldest_go_first() -> None:
    made = [kept(number, 500) for number in (3, 1, 2)]
    assert [each.made_of for each in artefacts()] == [made[1], made[2], made[0]]
    assert sum(each.size_bytes for each in artefacts()) == 1500
    assert [each.made_of for each in trim(1200)] == [made[1]]
    assert trim(1200) == []
    trim(0, staying=(made[2].folder,))
    assert [each.made_of for each in artefacts()] == [made[2]]


def test_no_more_than_twice_the_largest_model_is_kept() -> None:
    made = [kept(number, 600) for number in (1, 2, 3)]
    make_room(replace(BASE, model_bytes=900), 800, staying=(made[0].folder,))  # 2000 are allowed
    assert [each.made_of for each in artefacts()] == [made[0], made[2]]
    make_room(replace(BASE, model_bytes=5000), 800)
    assert len(artefacts()) == 2
    make_room(BASE, 100, limit_bytes=700)
    assert [each.made_of for each in artefacts()] == [made[2]]


def test_what_the_disk_cannot_hold_is_said_before() -> None:
    with pytest.raises(ThriftbitError, match=r"about 10\.0 PB are needed there, and its disk has .* free"):
        make_room(BASE, 10**15, scratch_bytes=9 * 10**15)


def test_what_a_run_makes_is_left_alone(told: list[str]) -> None:
    made = kept(1, 500)
    entered, leave, second = threading.Event(), threading.Event(), list[str]()

    def first_run() -> None:
        with locked(made.folder, "calibrating tiny"):
            entered.set()
            leave.wait(10)
            second.append("first")

    def second_run() -> None:
        with locked(made.folder, "calibrating tiny"):
            second.append("second")

    threads = [threading.Thread(target=run) for run in (first_run, second_run)]
    threads[0].start()
    assert entered.wait(10)
    assert not remove(made.folder) and trim(0) == []
    threads[1].start()
    threads[1].join(0.3)
    assert second == [] and any("Another run is calibrating tiny" in line for line in told)
    leave.set()
    for thread in threads:
        thread.join(10)
    assert second == ["first", "second"]
    assert remove(made.folder) and artefacts() == []
