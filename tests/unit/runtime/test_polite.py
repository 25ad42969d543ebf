"""What polite mode decides, from readings of computers that are busy, on battery, short of memory or say nothing."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from thriftbit.cli.options import minutes_to_keep, unload_option
from thriftbit.errors import ThriftbitError
from thriftbit.machine.unreadable import UnreadableError
from thriftbit.runtime.idle import IdleWatch, seconds_between_looks
from thriftbit.runtime.polite import (
    PRESSURE,
    UNLOAD_AFTER_MINUTES,
    Readings,
    check_room,
    memory_is_short,
    read_now,
    reason_to_unload,
    stalled_percent,
    threads_beside,
    threads_for,
)
from thriftbit.runtime.thread_limit import ProcessorTimes, cores_of_others

CALM = """some avg10=0.00 avg60=0.12 avg300=0.08 total=1234567
full avg10=0.00 avg60=0.00 avg300=0.00 total=123456
"""
STALLED = """some avg10=37.51 avg60=20.10 avg300=8.00 total=99999999
full avg10=12.00 avg60=7.00 avg300=2.00 total=88888888
"""
MEMINFO = "MemTotal:       8000000 kB\nMemFree:  100 kB\nMemAvailable:   {} kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\n"
MAINS = {"/sys/class/power_supply/AC/type": "Mains\n", "/sys/class/power_supply/AC/online": "1\n"}
BATTERY = {
    "/sys/class/power_supply/BAT0/type": "Battery\n",
    "/sys/class/power_supply/BAT0/status": "Discharging\n",
    "/sys/class/power_supply/BAT0/capacity": "60\n",
}


@dataclass
class Written:
    """Surroundings that were written down; what is not in `texts` cannot be read."""

    texts: dict[str, str]
    system: str = "Linux"
    libraries: dict[str, str] = field(default_factory=dict)
    release: str = "6.12.0"
    architecture: str = "x86_64"

    def text(self, path: str) -> str:
        if path not in self.texts:
            raise UnreadableError("cannot be read: Operation not supported")
        return self.texts[path]

    def names(self, folder: str) -> list[str]:
        below = f"{folder}/"
        return sorted({path.removeprefix(below).partition("/")[0] for path in self.texts if path.startswith(below)})

    def output(self, *command: str) -> str:
        raise UnreadableError(f"{command[0]} is not there")

    def answer(self, library: str) -> Mapping[str, Any]:
        answer: Mapping[str, Any] = json.loads(self.libraries[library])
        return answer


@pytest.mark.parametrize(
    ("text", "percent"),
    [
        (CALM, 0.0),
        (STALLED, 37.51),
        (STALLED.replace("some", "full"), None),
        ("", None),
        ("some avg10=a lot avg60=0.00\n", None),
        ("some avg10=", None),
        ("\x00" * 100, None),
        ("some avg10=99999999999 avg60=0 total=0\n", None),
    ],
)
def test_memory_pressure_is_read_or_not_known(text: str, percent: float | None) -> None:
    assert stalled_percent(text) == percent
    now = read_now(Written({PRESSURE: text, "/proc/meminfo": MEMINFO.format(6_000_000)}))
    assert now.stalled_percent == percent and memory_is_short(now) == (percent == 37.51)


def test_a_kernel_that_does_not_tell_the_pressure_is_judged_by_what_is_available() -> None:
    plenty = read_now(Written({"/proc/meminfo": MEMINFO.format(4_000_000)}))
    little = read_now(Written({"/proc/meminfo": MEMINFO.format(200_000)}))
    assert plenty.stalled_percent is None and plenty.available_bytes == 4_000_000 * 1024
    assert not memory_is_short(plenty) and memory_is_short(little)


def test_what_says_nothing_decides_nothing() -> None:
    nothing = read_now(Written({}))
    assert nothing == Readings(on_battery=False)  # a computer without power supplies has no battery
    assert not memory_is_short(Readings()) and threads_for(4, Readings()) == 4
    assert reason_to_unload(1e9, None, Readings()) == ""
    check_room("model.gguf", 1 << 60, Readings())


@pytest.mark.parametrize(
    ("supplies", "threads", "expected"), [(MAINS, 8, 8), (BATTERY, 8, 4), (BATTERY, 3, 2), (BATTERY, 1, 1)]
)
def test_on_battery_half_of_the_threads(supplies: dict[str, str], threads: int, expected: int) -> None:
    assert threads_for(threads, read_now(Written(supplies))) == expected


@pytest.mark.parametrize(
    ("threads", "cores", "others", "expected"),
    [
        (2, 2, 0.0, 2),
        (2, 2, 0.3, 2),
        (2, 2, 0.9, 1),
        (2, 2, 2.0, 1),
        (1, 1, 1.0, 1),
        (8, 8, 0.7, 7),
        (8, 8, 8.3, 1),
        (4, 8, 3.0, 4),
    ],
)
def test_threads_leave_the_cores_that_others_keep_busy(threads: int, cores: int, others: float, expected: int) -> None:
    assert threads_beside(threads, cores, others) == expected


def test_what_others_compute_is_what_this_process_did_not() -> None:
    before = ProcessorTimes(seconds=100.0, busy=1000.0, own=50.0)
    assert cores_of_others(before, ProcessorTimes(102.0, 1003.5, 51.5)) == pytest.approx(1.0)
    assert cores_of_others(before, ProcessorTimes(102.0, 1001.0, 51.1)) == 0.0  # both clocks are coarse
    assert cores_of_others(before, before) == 0.0


@pytest.mark.skipif(sys.platform != "linux", reason="only there it is read")
def test_what_this_computer_and_this_process_compute_is_read() -> None:
    before, stop = ProcessorTimes.now(), time.process_time() + 0.3
    while time.process_time() < stop:
        pass
    now = ProcessorTimes.now()
    assert now.own - before.own == pytest.approx(0.3, abs=0.05)
    assert now.busy - before.busy > 0.2 and now.seconds > before.seconds


def test_other_systems_are_asked_through_psutil() -> None:
    said = '{"battery_percent": 50, "power_plugged": false, "memory_available_bytes": 10, "memory_total_bytes": 1000}'
    now = read_now(Written({}, "Darwin", {"psutil": said}))
    assert now == Readings(on_battery=True, available_bytes=10, total_bytes=1000) and memory_is_short(now)


def test_a_model_is_unloaded_after_its_time_or_when_memory_is_short() -> None:
    enough, short = Readings(available_bytes=50, total_bytes=100), Readings(available_bytes=1, total_bytes=100)
    assert reason_to_unload(599, 10, enough) == ""
    assert reason_to_unload(600, 10, enough) == "nobody asked it anything for 10 minutes"
    assert reason_to_unload(6, 0.1, enough) == "nobody asked it anything for 6 seconds"
    assert reason_to_unload(60, None, short) == reason_to_unload(60, 10, short) == "memory became short"
    assert reason_to_unload(1, None, short) == ""  # whoever reads the answer asks again


def test_what_has_no_room_any_more_is_not_loaded_again() -> None:
    check_room("model.gguf", 100, Readings(available_bytes=100))
    with pytest.raises(ThriftbitError, match=r"model\.gguf was unloaded and takes 2\.00 GB .*1\.00 GB are free now"):
        check_room("model.gguf", 2_000_000_000, Readings(available_bytes=1_000_000_000))


def test_a_model_in_use_is_not_unloaded() -> None:
    unloaded = threading.Event()
    with IdleWatch(lambda reason: unloaded.set(), 0.001, Readings) as watch:
        with watch.using():
            assert not unloaded.wait(0.5)
        assert unloaded.wait(10)


@pytest.mark.parametrize("minutes", [0.001, 10.0, None])
def test_it_is_looked_often_enough(minutes: float | None) -> None:
    assert 0 < seconds_between_looks(minutes) <= min(5.0, 6 * (minutes or 10))


def test_full_speed_keeps_the_model_unless_a_time_is_given() -> None:
    assert minutes_to_keep(None, False) == UNLOAD_AFTER_MINUTES and minutes_to_keep(None, True) is None
    assert minutes_to_keep(5.0, True) == 5.0 and minutes_to_keep(0.0, False) is None

    def command() -> None:
        """Takes the option"""

    told: Callable[..., None] = unload_option(command)
    (option,) = told.__click_params__  # type: ignore[attr-defined]
    assert f"; {UNLOAD_AFTER_MINUTES:g} by default" in option.help
