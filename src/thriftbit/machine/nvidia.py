"""What NVIDIA's driver says: which GPUs there are, the GPU memory of a process, the energy of the GPUs.

This goes through NVML, the driver's own library, with NVIDIA's Python package. Whatever cannot be had has a reason: a
driver may be missing, of another version than its kernel module, or answer for one GPU and not for the next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from thriftbit.errors import ThriftbitError
from thriftbit.machine.unreadable import UnreadableError


def gpu_answers() -> dict[str, Any]:
    """Return gpus: of each driver (its version), name, memory_bytes, free_bytes, compute; an answer that the driver
    refuses is {"error": why}. Raises UnreadableError if the driver does not answer at all."""
    try:
        with _library() as nvml:
            answers = {"driver": lambda gpu: nvml.nvmlSystemGetDriverVersion()} | {
                "name": nvml.nvmlDeviceGetName,
                "memory_bytes": lambda gpu: nvml.nvmlDeviceGetMemoryInfo(gpu).total,
                "free_bytes": lambda gpu: nvml.nvmlDeviceGetMemoryInfo(gpu).free,
                "compute": lambda gpu: "{}.{}".format(*nvml.nvmlDeviceGetCudaComputeCapability(gpu)),
            }
            return {
                "gpus": [
                    {key: _answer(nvml, ask, index) for key, ask in answers.items()}
                    for index in range(nvml.nvmlDeviceGetCount())
                ]
            }
    except ThriftbitError as error:
        raise UnreadableError(str(error)) from None


def _answer(nvml: Any, ask: Callable[[Any], Any], index: int) -> Any:
    try:
        answer = ask(nvml.nvmlDeviceGetHandleByIndex(index))
    except nvml.NVMLError as error:
        return {"error": str(error)}
    return answer.decode(errors="replace") if isinstance(answer, bytes) else answer


def gpu_memory_bytes(process_id: int) -> int:
    """Return the bytes that a process holds on all GPUs together."""
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
    """Return the joules that all GPUs have used since the driver was loaded."""
    with _library() as nvml:
        millijoules: int = sum(nvml.nvmlDeviceGetTotalEnergyConsumption(gpu) for gpu in _gpus(nvml))
        return millijoules / 1000


@contextmanager
def _library() -> Iterator[Any]:
    try:
        import pynvml as nvml
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
