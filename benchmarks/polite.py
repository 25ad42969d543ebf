"""Does the computer stay usable while a model writes, and what does that cost the model?

    python benchmarks/polite.py [FILE] [--rounds 3] [--seconds 4] [--threads 2]

FILE: a GGUF; the model in the box in Q8_0 by default. Modes take turns in every round:

- idle: no model;
- polite: as `thriftbit chat` and `serve` run one;
- full speed: as with --full-speed;
- llama.cpp: its own server with its own defaults: a llama-server on PATH, otherwise the one of xllamacpp with nothing
  set but the file and the context.

The foreground is a process that computes for some 30 ms after random pauses and reads a small file each time, and a
loop that wakes every 4 ms for a small fixed amount of work. What is counted is how long a burst takes, and how late the
work after a waking is done. Then the model writes alone, and beside one and two (as many as there are cores) programs
that only compute. Ratios are medians of the rounds, with the lowest and the highest.

Bars: the foreground's 99th percentile politely within 1.5 times that of an idle machine, in both workloads, and at
least 80% of full speed when nothing else runs. Joules per token where an energy counter can be read. One JSON line
last; exit code 3 if a bar is not met.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

import psutil

from thriftbit import Engine, make_plan, quantize
from thriftbit.demo import open_demo_model
from thriftbit.errors import ThriftbitError
from thriftbit.measurement.energy import find_meter, metered

PROMPT = list(range(100, 132))
CONTEXT_TOKENS = 1024
PIECE_TOKENS = 16  # written at a time, so that a mode ends when its time does
FOREGROUND_BAR, SPEED_BAR = 1.5, 0.8
IDLE, POLITE, FULL, BARE = "idle", "polite", "full speed", "llama.cpp"

Write = Callable[[], tuple[int, float]]  # -> tokens, and the seconds of llama.cpp's own clock that they took


# ---------------------------------------------------------------- the foreground, in a process of its own


def foreground(seconds: float, seed: int) -> None:
    """Prints milliseconds: of bursts, and of wakings."""
    chance = random.Random(seed)
    bursts: list[float] = []
    wakings: list[float] = []
    with tempfile.NamedTemporaryFile() as file:
        file.write(os.urandom(1 << 16))
        file.flush()
        end = time.monotonic() + seconds / 2
        while time.monotonic() < end:
            time.sleep(chance.uniform(0.01, 0.1))
            started = time.monotonic()
            Path(file.name).read_bytes()
            _compute(30)
            bursts.append(1000 * (time.monotonic() - started))
        end = time.monotonic() + seconds / 2
        while time.monotonic() < end:
            due = time.monotonic() + 0.004
            time.sleep(0.004)
            _compute(1)
            wakings.append(1000 * (time.monotonic() - due))
    print(json.dumps({"bursts": bursts, "wakings": wakings}))


def _compute(amount: int) -> None:
    """About a millisecond each"""
    for _ in range(amount):
        sum(range(40_000))


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


# ---------------------------------------------------------------- the modes


@contextmanager
def engine(path: Path, threads: int | None, polite: bool) -> Iterator[Write]:
    with Engine(path, context_tokens=CONTEXT_TOKENS, threads=threads, polite=polite) as running:

        def write() -> tuple[int, float]:
            answer = running.generate(PROMPT, max_tokens=PIECE_TOKENS, temperature=0, ignore_end=True)
            return answer.generated_tokens - 1, answer.generation_seconds

        yield write


BARE_SERVER = """
import sys, time, xllamacpp
parameters = xllamacpp.CommonParams()
parameters.model.path, parameters.n_ctx, parameters.port = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
server = xllamacpp.Server(parameters)
while True:
    time.sleep(60)
"""


@contextmanager
def bare_server(path: Path) -> Iterator[Write]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = shutil.which("llama-server")
    if program:
        command = [program, "-m", str(path), "-c", str(CONTEXT_TOKENS), "--port", str(port)]
    else:
        command = [sys.executable, "-c", BARE_SERVER, str(path), str(CONTEXT_TOKENS), str(port)]
    request = {"prompt": PROMPT, "n_predict": PIECE_TOKENS, "temperature": 0, "ignore_eos": True}

    def write() -> tuple[int, float]:
        address = f"http://127.0.0.1:{port}/completion"
        asked = urllib.request.Request(address, json.dumps(request).encode(), {"Content-Type": "application/json"})
        with urllib.request.urlopen(asked, timeout=300) as answer:
            timings = json.load(answer)["timings"]
        return timings["predicted_n"] - 1, timings["predicted_ms"] / 1000

    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            deadline = time.monotonic() + 120
            while True:
                try:
                    write()
                    break
                except OSError:
                    if server.poll() is not None or time.monotonic() > deadline:
                        raise
                    time.sleep(0.2)
            yield write
        finally:
            server.kill()


def speed(write: Write, seconds: float) -> float:
    """Return tokens/s, for so long; a slow piece is finished."""
    tokens, spent, end = 0, 0.0, time.monotonic() + seconds
    while time.monotonic() < end:
        more, took = write()
        tokens, spent = tokens + more, spent + took
    return tokens / spent


@contextmanager
def computing_programs(count: int) -> Iterator[None]:
    with ExitStack() as stack:
        for _ in range(count):
            program = subprocess.Popen([sys.executable, "-c", "while True: sum(range(10_000))"])
            stack.callback(program.wait)
            stack.callback(program.kill)
        if count:
            time.sleep(0.3)
        yield


def beside_the_foreground(write: Write | None, seconds: float, seed: int) -> tuple[dict[str, list[float]], float]:
    """Return the foreground's milliseconds, and tokens/s meanwhile."""
    command = [sys.executable, __file__, "--foreground", str(seconds), "--seed", str(seed)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
        found: list[str] = []
        reading = threading.Thread(target=lambda: found.append(program.stdout.read() if program.stdout else ""))
        reading.start()
        tokens, spent = 0, 0.0
        while program.poll() is None:
            if write is None:
                program.wait()
                break
            more, took = write()
            tokens, spent = tokens + more, spent + took
        reading.join()
    return json.loads(found[0]), tokens / spent if spent else 0.0


# ---------------------------------------------------------------- rounds and what they say


def measure_mode(mode: str, path: Path, arguments: argparse.Namespace, number: int) -> dict[str, float]:
    """Return one round of one mode."""
    with ExitStack() as stack:
        write: Write | None = None
        if mode == BARE:
            write = stack.enter_context(bare_server(path))
        elif mode != IDLE:
            write = stack.enter_context(engine(path, arguments.threads, mode == POLITE))
        if write:
            write()
        times, rate = beside_the_foreground(write, 2 * arguments.seconds, number)
        found = {
            f"{name} p{round(100 * share)}": percentile(times[name], share)
            for name in ("bursts", "wakings")
            for share in (0.5, 0.95, 0.99)
        }
        if write is None:
            return found
        found["tokens/s beside the foreground"] = rate
        for count in (0, *sorted({1, os.cpu_count() or 1})):
            with computing_programs(count):
                found[f"tokens/s beside {count} computing" if count else "tokens/s alone"] = speed(
                    write, arguments.seconds / 2
                )
        if arguments.meter:
            alone, joules = metered(arguments.meter, lambda least: _tokens(write, max(least, 1.0)))
            if isinstance(joules, float):
                found["joules per token"] = joules / alone
    return found


def _tokens(write: Write, seconds: float) -> int:
    tokens, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        tokens += write()[0]
    return tokens


def ratio(rounds: list[dict[str, dict[str, float]]], name: str, of: str, to: str) -> tuple[float, float, float]:
    """Return the median over rounds, the lowest and the highest."""
    ratios = [each[of][name] / each[to][name] for each in rounds]
    return round(median(ratios), 3), round(min(ratios), 3), round(max(ratios), 3)


def report(rounds: list[dict[str, dict[str, float]]], modes: list[str]) -> dict[str, object]:
    """Prints a table. Returns the summary."""
    names = list(rounds[0][POLITE])
    print("| median of rounds | " + " | ".join(modes) + " |\n| --- |" + " ---: |" * len(modes))
    medians: dict[str, dict[str, float]] = {}
    for name in names:
        medians[name] = {
            mode: round(median(each[mode][name] for each in rounds), 2) for mode in modes if name in rounds[0][mode]
        }
        unit = " (ms)" if " p" in name else ""
        print(f"| {name}{unit} | " + " | ".join(f"{medians[name].get(mode, '')}" for mode in modes) + " |")
    others = [mode for mode in modes if mode != IDLE]
    slower = {
        f"{name}, {mode}": ratio(rounds, name, mode, IDLE) for name in ("bursts p99", "wakings p99") for mode in others
    }
    kept = {name: ratio(rounds, name, POLITE, FULL) for name in names if name.startswith("tokens/s")}
    worst = max(slower[f"{name}, {POLITE}"][0] for name in ("bursts p99", "wakings p99"))
    met = {"foreground": worst <= FOREGROUND_BAR, "speed": kept["tokens/s alone"][0] >= SPEED_BAR}
    return {"medians": medians, "to an idle machine": slower, "polite to full speed": kept, "bars_met": met}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="that each of the two foregrounds runs in a round")
    parser.add_argument("--threads", type=int, help="of polite and full speed; llama.cpp's own choice by default")
    parser.add_argument("--foreground", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.foreground:
        foreground(arguments.foreground, arguments.seed)
        return
    energy = ""
    try:
        arguments.meter = find_meter(uses_gpu=False)
    except ThriftbitError as error:
        arguments.meter, energy = None, str(error)
    modes = [IDLE, POLITE, FULL, BARE]
    rounds: list[dict[str, dict[str, float]]] = []
    with tempfile.TemporaryDirectory() as folder:
        path = arguments.file
        if path is None:
            model = open_demo_model()
            path = quantize(model, make_plan(model, "Q8_0"), Path(folder) / "demo-Q8_0.gguf").path
        busy = []
        for number in range(arguments.rounds):
            busy.append(round(psutil.cpu_percent(interval=1.0) / 100 * (psutil.cpu_count() or 1), 2))
            found: dict[str, dict[str, float]] = {}
            try:
                for mode in modes if number % 2 == 0 else modes[::-1]:
                    found[mode] = measure_mode(mode, path, arguments, number)
                    print(f"round {number + 1}, {mode}: {found[mode]}", file=sys.stderr, flush=True)
            except KeyboardInterrupt:  # what there is, is told
                break
            rounds.append(found)
    if not rounds:
        sys.exit("interrupted before the end of the first round")
    document = report(rounds, modes)
    document["cores busy with other things before each round"] = busy
    document["llama.cpp is"] = shutil.which("llama-server") or "xllamacpp's server, nothing set but file and context"
    document["energy"] = energy or "joules per token, of all that ran"
    print(json.dumps({"benchmark": "polite", "model": path.name, "rounds": len(rounds), **document}))
    if not all(document["bars_met"].values()):  # type: ignore[attr-defined]
        sys.exit(3)


if __name__ == "__main__":
    main()
