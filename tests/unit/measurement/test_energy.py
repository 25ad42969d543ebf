"""Energy counters, read from trees of files as Linux shows them below /sys, and from what powermetrics prints."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from thriftbit.errors import ThriftbitError
from thriftbit.measurement.energy import Together, find_meter
from thriftbit.measurement.energy_apple import PowerMetrics, mean_watts
from thriftbit.measurement.energy_linux import Battery, Rapl

RANGE_MICROJOULES = 262_143_328_850


def zone(root: Path, folder: str, name: str, energy_microjoules: int) -> Path:
    path = root / "class" / "powercap" / folder
    path.mkdir(parents=True)
    (path / "name").write_text(f"{name}\n")
    (path / "energy_uj").write_text(f"{energy_microjoules}\n")
    (path / "max_energy_range_uj").write_text(f"{RANGE_MICROJOULES}\n")
    return path / "energy_uj"


def battery(root: Path, name: str = "BAT0", status: str = "Discharging", **files: object) -> Path:
    path = root / "class" / "power_supply" / name
    path.mkdir(parents=True)
    for file, content in {"type": "Battery", "status": status, **files}.items():
        (path / file).write_text(f"{content}\n")
    return path


@contextmanager
def as_nobody() -> Iterator[None]:
    """Root may read everything; anybody else is refused what is not theirs"""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_packages_and_memory_are_added_and_what_they_contain_is_not(tmp_path: Path) -> None:
    first = zone(tmp_path, "intel-rapl:0", "package-0", 1_000_000)
    core = zone(tmp_path, "intel-rapl:0:0", "core", 500_000)
    memory = zone(tmp_path, "intel-rapl:0:2", "dram", 7)
    second = zone(tmp_path, "intel-rapl:1", "package-1", 0)
    platform = zone(tmp_path, "intel-rapl:2", "psys", 0)
    mirrored = zone(tmp_path, "intel-rapl-mmio:0", "package-0", 1_000_000)
    meter = Rapl(tmp_path)
    assert meter.available() == "" and meter.covers() == "the processor and memory (RAPL)"
    meter.start()
    first.write_text("3500000")
    memory.write_text("250007")
    second.write_text("1000000")
    for left_out in (core, platform, mirrored):
        left_out.write_text("99000000")
    assert meter.stop() == pytest.approx(2.5 + 0.25 + 1.0)


def test_a_counter_that_began_again_is_carried_on(tmp_path: Path) -> None:
    counter = zone(tmp_path, "intel-rapl:0", "package-0", RANGE_MICROJOULES - 1_000_000)
    meter = Rapl(tmp_path)
    assert meter.covers() == "the processor (RAPL)"
    meter.start()
    counter.write_text("500000")
    assert meter.stop() == pytest.approx(1.5)


def test_a_counter_that_stands_still_measures_nothing(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0", 5)
    meter = Rapl(tmp_path)
    meter.start()
    with pytest.raises(ThriftbitError, match="stands still"):
        meter.stop()


def test_a_counter_that_only_root_may_read_comes_with_the_remedy() -> None:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are closed to others altogether
        root = Path(folder)
        counter = zone(root, "intel-rapl:0", "package-0", 0)
        root.chmod(0o755)
        counter.chmod(0)
        with as_nobody():
            reason = Rapl(root).available()
            assert f"sudo chmod a+r {root}/class/powercap/intel-rapl:*/energy_uj" in reason
            with pytest.raises(ThriftbitError, match=r"^not measurable here: only root may .*; there is no battery$"):
                find_meter(uses_gpu=False, root=root, platform="linux")
        counter.chmod(0o644)
        assert find_meter(uses_gpu=False, root=root, platform="linux").covers() == "the processor (RAPL)"


def test_a_counter_that_is_no_number_is_a_reason(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0", 0).write_text("none of your business")
    assert "cannot be read" in Rapl(tmp_path).available()


def test_no_counters_at_all(tmp_path: Path) -> None:
    with pytest.raises(ThriftbitError, match=r"^not measurable here: .*virtual machines.*; there is no battery$"):
        find_meter(uses_gpu=False, root=tmp_path, platform="linux")
    with pytest.raises(ThriftbitError, match="no energy counter is known for win32"):
        find_meter(uses_gpu=False, root=tmp_path, platform="win32")


def test_a_battery_in_watt_hours(tmp_path: Path) -> None:
    path = battery(tmp_path, energy_now=40_000_000)
    battery(tmp_path, "hidpp_battery_0", scope="Device", capacity=50)  # the mouse's
    meter = find_meter(uses_gpu=False, root=tmp_path, platform="linux")
    assert isinstance(meter, Battery) and meter.shortest_seconds >= 30
    meter.start()
    (path / "energy_now").write_text("39750000")
    assert meter.stop() == pytest.approx(0.25 * 3600)


def test_a_battery_in_ampere_hours_under_a_sagging_voltage(tmp_path: Path) -> None:
    path = battery(tmp_path, charge_now=3_000_000, voltage_now=12_200_000)
    meter = Battery(tmp_path)
    meter.start()
    (path / "charge_now").write_text("2980000")
    (path / "voltage_now").write_text("11800000")
    assert meter.stop() == pytest.approx(0.020 * 12.0 * 3600)


def test_of_two_batteries_one_rests(tmp_path: Path) -> None:
    battery(tmp_path, "BAT0", status="Not charging", energy_now=20_000_000)
    path = battery(tmp_path, "BAT1", energy_now=10_000_000)
    meter = Battery(tmp_path)
    assert meter.available() == ""
    meter.start()
    (path / "energy_now").write_text("9900000")
    assert meter.stop() == pytest.approx(360)


def test_a_battery_that_is_being_charged_measures_nothing(tmp_path: Path) -> None:
    path = battery(tmp_path, energy_now=40_000_000)
    meter = Battery(tmp_path)
    meter.start()
    (path / "status").write_text("Charging")
    with pytest.raises(ThriftbitError, match="unplug the computer"):
        meter.stop()
    assert "unplug" in meter.available()


def test_a_battery_that_has_not_moved_measures_nothing(tmp_path: Path) -> None:
    battery(tmp_path, energy_now=40_000_000)
    meter = Battery(tmp_path)
    meter.start()
    with pytest.raises(ThriftbitError, match="too coarsely"):
        meter.stop()


def test_a_battery_without_a_charge_is_a_reason(tmp_path: Path) -> None:
    battery(tmp_path, capacity=80)
    assert Battery(tmp_path).available() == "the battery does not tell its charge"


def test_meters_of_different_parts_are_added(tmp_path: Path) -> None:
    counter = zone(tmp_path, "intel-rapl:0", "package-0", 0)
    path = battery(tmp_path, energy_now=40_000_000)
    both = Together([Rapl(tmp_path), Battery(tmp_path)])
    assert both.shortest_seconds == Battery.shortest_seconds
    assert both.covers() == "the processor (RAPL) and the whole computer (battery)"
    both.start()
    counter.write_text("2000000")
    (path / "energy_now").write_text("39990000")
    assert both.stop() == pytest.approx(2 + 36)


APPLE_SILICON = """
*** Sampled system activity (Sat Nov 22 19:00:00 2025 +0100) (203.11ms elapsed) ***

**** Processor usage ****

E-Cluster Online: 100%
CPU Power: 4000 mW
GPU Power: 900 mW
ANE Power: 0 mW
Combined Power (CPU + GPU + ANE): 4900 mW

*** Sampled system activity (Sat Nov 22 19:00:00 2025 +0100) (202.54ms elapsed) ***

CPU Power: 6000 mW
Combined Power (CPU + GPU + ANE): 6100 mW
"""
INTEL_MAC = "Intel energy model derived package power (CPUs+GT+SA): 12.50W\nLLC flushed residency: 0%\n"


def test_what_powermetrics_prints() -> None:
    assert mean_watts(APPLE_SILICON) == pytest.approx(5.5)
    assert mean_watts(INTEL_MAC) == pytest.approx(12.5)
    with pytest.raises(ThriftbitError, match="printed no power"):
        mean_watts("Machine model: Mac14,2\n")


@pytest.mark.skipif(os.name == "nt", reason="a program is a shell script here")
def test_samples_are_collected_from_the_program_until_it_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "powermetrics"
    program.write_text("#!/bin/sh\nwhile :; do echo 'Combined Power (CPU + GPU + ANE): 2000 mW'; sleep 0.02; done\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    meter, started = PowerMetrics(), time.monotonic()
    meter.start()
    time.sleep(0.5)
    joules = meter.stop()
    assert 2 * 0.5 <= joules <= 2 * (time.monotonic() - started)
