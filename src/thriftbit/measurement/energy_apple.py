"""macOS: `powermetrics`, which comes with the system and tells root the power of processor and GPU.

It prints a sample several times a second; energy is their mean power times the time. Apple silicon gives "Combined
Power" of processor, GPU and neural engine; Intel Macs the power of the package.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from contextlib import ExitStack

from thriftbit.containers.temporary_folder import temporary_folder
from thriftbit.errors import ThriftbitError

_INTERVAL_MILLISECONDS = 200
_SAMPLE = re.compile(
    r"^(?:Combined Power|Package Power|Intel energy model derived package power)[^:]*: *([\d.]+) *(m?)W", re.M
)


class PowerMetrics:
    shortest_seconds = 2.0  # ten samples

    def covers(self) -> str:
        return "processor and GPU (powermetrics)"

    def available(self) -> str:
        if shutil.which("powermetrics") is None:
            return "powermetrics, which comes with macOS, is not there"
        if os.geteuid() != 0:
            return "macOS tells only root how much power it uses; run the same command with sudo in front"
        return ""

    def start(self) -> None:
        self._folder = ExitStack()
        self._samples = self._folder.enter_context(temporary_folder("power")) / "samples.txt"
        command = ["powermetrics", "--samplers", "cpu_power,gpu_power", "-b", "1", "-i", str(_INTERVAL_MILLISECONDS)]
        with self._samples.open("w") as output:
            self._process = subprocess.Popen(command, stdout=output, stderr=subprocess.DEVNULL)
        self._started = time.monotonic()

    def stop(self) -> float:
        seconds = time.monotonic() - self._started
        with self._folder:
            self._process.terminate()
            self._process.wait()
            return mean_watts(self._samples.read_text()) * seconds


def mean_watts(text: str) -> float:
    """Return the mean power of the samples that powermetrics printed, in watts. ThriftbitError if there is none."""
    samples = [float(number) / (1000 if milli else 1) for number, milli in _SAMPLE.findall(text)]
    if not samples:
        raise ThriftbitError("powermetrics printed no power")
    return sum(samples) / len(samples)
