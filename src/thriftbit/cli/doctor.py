"""`thriftbit doctor`: what this computer has, what it can use, and what was measured of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click
from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

import thriftbit
from thriftbit.cli.options import Duration, json_option
from thriftbit.cli.printing import say, show, table
from thriftbit.cli.progress import ProgressLine
from thriftbit.cli.questions import offer_measuring
from thriftbit.sizes import counted, describe_bytes
from thriftbit.strangers import harmless

if TYPE_CHECKING:
    from thriftbit.machine.facts import Fact, Facts, Gpu
    from thriftbit.machine.profile import Profile, Spread


@click.command(short_help="Show what this computer has, what it can use, and how fast it is.")
@click.option("--measure", "measuring", is_flag=True, help="Measure how fast models run here; takes about a minute.")
@click.option(
    "--time", "budget", type=Duration(), default="70s", show_default=True, help="About how long measuring may take."
)
@json_option
def doctor(measuring: bool, budget: float, as_json: bool) -> None:
    """Show what this computer has, what it can run models with, and what was measured of it.

    --measure takes a minute. It measures how fast memory and disk are read, how many threads help, and how fast
    llama.cpp computes with each format. The result is kept, and every prediction of a speed uses it. Measure while
    nothing else is running. In a terminal you are offered this once, and again when the hardware has changed.

    --json prints every fact with its source, as a bug report needs it. It names neither you nor your computer. Saved to
    a file, it describes this computer to `thriftbit fit --machine` on another one.

    \b
    Examples:
      thriftbit doctor
      thriftbit doctor --measure
      thriftbit doctor --measure --time 3m        every format, several times over
      thriftbit doctor --json > profile.json
    """
    if not measuring:
        offer_measuring(as_json)
    facts = thriftbit.examine()
    if measuring:
        with ProgressLine() as line:
            profile = thriftbit.measure_machine(facts, budget_seconds=budget, progress=line.update)
    else:
        profile = thriftbit.profile_of(facts)
    if as_json:
        print(profile.to_json(), flush=True)
    else:
        print_profile(profile)


_SIMPLE_SETS = ("SSE4.2", "AVX", "F16C", "FMA", "FP16")  # whoever has the others has these
_DISTURBING = 0.5  # processors


def print_profile(profile: Profile) -> None:
    from thriftbit.machine.meaning import sentences

    say("This computer", style="bold")
    show(_rows(_facts(profile.facts)))
    if profile.measured_at:
        say(f"\nMeasured here on {profile.measured_at[:10]}", style="bold")
        show(_rows(_measured(profile)))
        _print_outlooks(profile)
    say("\nWhat that means", style="bold")
    for sentence in (*sentences(profile), *profile.facts.notes):
        show(_indented(Text(harmless(sentence))))
    if not profile.measured_at:
        show(_indented(Text("How fast models run here has not been measured yet; it takes a minute:")))
        say("    thriftbit doctor --measure")


def _rows(rows: Iterator[tuple[str, str]]) -> Padding:
    result = Table.grid(padding=(0, 2, 0, 0))
    result.add_column(no_wrap=True, style="dim", min_width=12)
    result.add_column(overflow="fold")
    for name, value in rows:
        result.add_row(name, Text(harmless(value)))
    return _indented(result)


def _indented(block: RenderableType) -> Padding:
    return Padding(block, (0, 0, 0, 2), expand=False)


def _facts(facts: Facts) -> Iterator[tuple[str, str]]:
    container = facts.system.container.value
    yield "system", _said(facts.system.name) + (f", inside {container}" if container else "")
    yield "processor", _processor(facts)
    yield "memory", _memory(facts)
    yield "disk", _disk(facts)
    for gpu in facts.gpus:
        yield "GPU", _gpu(gpu)
    if not facts.gpus:
        yield "GPU", "none found"
    yield "power", _power(facts)
    yield "load", _load(facts)
    for index, engine in enumerate(facts.engines):
        version = f" ({engine.version.value})" if engine.version.value else ""
        if not engine.where and engine.version.value is None:
            version = f": does not run here ({engine.version.reason})"
        where = "" if engine.where in ("", "built in") else f", {engine.where}"
        yield "runs models" if index == 0 else "", f"{engine.name}{version}{where}"
    for index, cache in enumerate(facts.caches):
        yield "keeps models" if index == 0 else "", f"{cache.name}: {_said(cache.size_bytes, _bytes)} in {cache.where}"


def _processor(facts: Facts) -> str:
    processor = facts.processor
    physical, logical, fast = (
        fact.value for fact in (processor.physical_cores, processor.logical_cores, processor.fast_cores)
    )
    cores = f"{physical or logical or 'unknown'} {'core' if (physical or logical) == 1 else 'cores'}"
    if physical and fast and fast < physical:
        cores += f" ({fast} fast, {physical - fast} slower)"
    if physical and logical and logical > physical:
        cores += f", {logical} threads"
    usable = processor.usable_cores.value
    if usable and logical and usable < logical:
        cores += f", of which this process may use {usable:g}"
    sets = [name for name in processor.instruction_sets.value or () if name not in _SIMPLE_SETS]
    return ", ".join([_said(processor.name), cores, *sets])


def _memory(facts: Facts) -> str:
    memory = facts.memory
    parts = [_said(memory.total_bytes, _bytes)]
    installed, total = memory.installed_bytes.value, memory.total_bytes.value
    if installed and total and total < installed:
        parts[0] += f" allowed of {_bytes(installed)}"
    parts.append(f"{_said(memory.available_bytes, _bytes)} free now")
    swap = memory.swap_total_bytes.value
    parts.append("no swap" if swap == 0 else f"swap {_said(memory.swap_total_bytes, _bytes)}")
    if memory.unified.value:
        parts.append("shared with the GPU")
    return ", ".join(parts)


def _disk(facts: Facts) -> str:
    disk = facts.disk
    free = f"{_said(disk.free_bytes, _bytes)} free of {_said(disk.total_bytes, _bytes)}"
    kind = disk.kind.value or "kind unknown"
    return ", ".join([free, kind, *([disk.filesystem.value] if disk.filesystem.value else [])])


def _gpu(gpu: Gpu) -> str:
    parts = [gpu.name.value or f"{gpu.vendor}, name unknown"]
    if gpu.memory_bytes.value is not None:
        parts.append(f"{_bytes(gpu.memory_bytes.value)}{' of the main memory' if gpu.shared.value else ''}")
    else:
        parts.append(f"memory unknown ({gpu.memory_bytes.reason})")
    if gpu.free_bytes.value is not None:
        parts.append(f"{_bytes(gpu.free_bytes.value)} free now")
    parts += [fact.value for fact in (gpu.compute,) if fact.value]
    if gpu.driver.value:
        parts.append(f"driver {gpu.driver.value}")
    return ", ".join(parts)


def _power(facts: Facts) -> str:
    percent = facts.power.battery_percent.value
    return _said(facts.power.source) + ("" if percent is None else f", {percent}% charged")


def _load(facts: Facts) -> str:
    load, cores = facts.load, facts.processor.logical_cores.value
    parts = [f"{_said(load.busy_cores, lambda busy: f'{busy:.1f}')} of {cores or 'unknown'} processors busy"]
    if load.temperature_celsius.value is not None:
        parts.append(f"{load.temperature_celsius.value:.0f} °C")
    if load.throttled.value:
        parts.append("slowed down for heat or power")
    return ", ".join(parts)


def _measured(profile: Profile) -> Iterator[tuple[str, str]]:
    speeds = (f"{_rate(each.bytes_per_second)} with {_threads(each.threads)}" for each in profile.bandwidth)
    yield "memory", ", ".join(speeds)
    disk = profile.disk_read_bytes_per_second
    yield "disk", "unknown: its cache cannot be gone around here" if disk is None else f"{_rate(disk)}, reading"
    threads = "" if profile.best_threads is None else f", fastest with {_threads(profile.best_threads)}"
    formats = counted(len({rate.format for rate in profile.rates}), "format")
    yield "llama.cpp", f"{formats} on {profile.device}{threads}"
    if profile.busy_cores is not None and profile.busy_cores >= _DISTURBING:
        yield (
            "note",
            f"other programs used {profile.busy_cores:.1f} processors meanwhile; measure again when they are idle",
        )


def _print_outlooks(profile: Profile) -> None:
    from thriftbit.machine.meaning import PREDICTION_ERROR, outlooks

    rows = [
        (
            each.format,
            each.plainly,
            describe_bytes(each.size_bytes),
            {True: "yes", False: "no", None: "unknown"}[each.fits],
            f"{each.writes.median:.2g}/s",
            f"{each.reads.median:.2g}/s",
        )
        for each in outlooks(profile)
    ]
    if rows:
        say(f"\nFor a model of 7 billion weights, predicted ± {PREDICTION_ERROR:.0%}", style="bold")
        show(_indented(table(("format", "means", ">size", "fits now", ">tokens written", ">tokens read"), rows)))


def _rate(spread: Spread) -> str:
    return f"{describe_bytes(int(spread.median))}/s"


def _threads(count: int) -> str:
    return counted(count, "thread")


def _bytes(size_bytes: int) -> str:
    return describe_bytes(size_bytes)


def _said(fact: Fact[Any], describe: Any = str) -> str:
    return f"unknown ({fact.reason})" if fact.value is None else str(describe(fact.value))
