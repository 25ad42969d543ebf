"""What NVIDIA's driver counts: the GPU memory of a process, and the energy of the GPUs.

Through NVML, the driver's own library, by way of its Python package, which is not part of the installation: most
computers have no use for it. Everything that cannot be had is a ThriftbitError that says why and what would help.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from thriftbit.errors import ThriftbitError


def gpu_memory_bytes(process_id: int) -> int:
    """-> what a process holds on all GPUs together"""
    with _library() as nvml:
        used: dict[int, int] = {}  # by GPU; a process may be listed both for computing and for graphics
        for index, gpu in enumerate(_gpus(nvml)):
            for listed in (nvml.nvmlDeviceGetComputeRunningProcesses, nvml.nvmlDeviceGetGraphicsRunningProcesses):
                for process in listed(gpu):
                    if process.pid == process_id and process.usedGpuMemory:
                        used[index] = max(used.get(index, 0), process.usedGpuMemory)
    if not used:
        raise ThriftbitError("NVIDIA's driver does not show llama.cpp's process (inside a container it never does)")
    return sum(used.values())


def gpu_energy_joules() -> float:
    """-> what all GPUs have used since the driver was loaded"""
    with _library() as nvml:
        millijoules: int = sum(nvml.nvmlDeviceGetTotalEnergyConsumption(gpu) for gpu in _gpus(nvml))
        return millijoules / 1000


@contextmanager
def _library() -> Iterator[Any]:
    try:
        nvml = importlib.import_module("pynvml")
    except ImportError:
        raise ThriftbitError("asking NVIDIA's driver takes a package: pip install nvidia-ml-py") from None
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        raise ThriftbitError(f"NVIDIA's driver does not answer: {error}") from None
    try:
        yield nvml
    except nvml.NVMLError as error:
        raise ThriftbitError(f"NVIDIA's driver says: {error}") from None
    finally:
        nvml.nvmlShutdown()


def _gpus(nvml: Any) -> list[Any]:
    return [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
