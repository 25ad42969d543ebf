"""GPUs: what NVIDIA's driver says, and what Linux shows on the PCI bus for all makers.

The bus also shows a card whose driver is missing or broken. Such a GPU is listed, with what is unknown and why, because
its owner needs to hear that there is a GPU which cannot be used yet. The console graphics of servers are left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Any

from thriftbit.machine.facts import Fact, Gpu, known, unknown
from thriftbit.machine.surroundings import (
    Surroundings,
    attempt,
    keyed_lines,
    number,
    number_or_none,
    text_or_empty,
)

PCI = "/sys/bus/pci/devices"
KFD = "/sys/class/kfd/kfd/topology/nodes"
VENDORS = {"0x10de": "NVIDIA", "0x1002": "AMD", "0x8086": "Intel"}
_PCI_NAMES = ("/usr/share/misc/pci.ids", "/usr/share/hwdata/pci.ids")
_DISPLAY_CLASSES = ("0x0300", "0x0302", "0x0380")
_SMI_FIELDS = ("driver_version", "name", "memory.total", "memory.free", "compute_cap")
_SMI = ("nvidia-smi", f"--query-gpu={','.join(_SMI_FIELDS)}", "--format=csv,noheader,nounits")
_CARVED_OUT_BYTES = 3 << 30  # what firmware sets aside for an integrated GPU is less, as a rule
# AMD's processors with graphics (Raven, Renoir, Cezanne, Van Gogh, Rembrandt, Raphael, Phoenix, Strix)
_INTEGRATED = ("gfx902", "gfx909", "gfx90c", "gfx1033", "gfx1035", "gfx1036", "gfx1037", "gfx1103", "gfx115")


def nvidia_gpus(surroundings: Surroundings) -> tuple[list[Gpu], str]:
    """Return the GPUs that the driver answers for, and, if it does not answer, why."""

    def from_library() -> list[Gpu]:
        return [_nvidia_gpu(answer, "NVML") for answer in surroundings.answer("nvml")["gpus"]]

    def from_program() -> list[Gpu]:
        return [_nvidia_gpu(_smi_answer(line), "nvidia-smi") for line in surroundings.output(*_SMI).splitlines()]

    library, program = attempt("NVML", from_library), attempt("nvidia-smi", from_program)
    for answer in (library, program):
        if answer.value is not None:
            return answer.value, ""
    said_too = "" if "is not there" in program.reason else f"; {program.reason}"
    return [], f"{library.reason}{said_too}"


def pci_gpus(surroundings: Surroundings, nvidia_answers: int, nvidia_reason: str) -> list[Gpu]:
    """Return Linux's AMD and Intel GPUs, and the NVIDIA GPUs for which the driver does not answer.

    nvidia_answers: how many GPUs the driver answers for. nvidia_reason: why it does not answer.
    """
    gpus, silent = [], -nvidia_answers
    for device in surroundings.names(PCI):
        folder = f"{PCI}/{device}"
        vendor = VENDORS.get(text_or_empty(surroundings, f"{folder}/vendor").strip())
        if text_or_empty(surroundings, f"{folder}/class").strip()[:6] not in _DISPLAY_CLASSES or vendor is None:
            continue
        if vendor == "NVIDIA":
            silent += 1
            if silent > 0:
                gpus.append(_silent_gpu(surroundings, folder, nvidia_reason or "NVIDIA's driver does not list it"))
        elif vendor == "AMD":
            gpus.append(_amd_gpu(surroundings, folder))
        else:
            gpus.append(_intel_gpu(surroundings, folder, device))
    return gpus


def _nvidia_gpu(answer: Mapping[str, Any], source: str) -> Gpu:
    def fact(key: str) -> Fact[Any]:
        value = answer.get(key)
        if isinstance(value, Mapping) or value is None:
            return unknown(f"NVIDIA's driver says: {value['error']}" if value else "not said", source)
        return known(value, source)

    # GPUs that share the main memory (Jetson, GB10) have none of their own to tell
    memory, compute = fact("memory_bytes"), fact("compute")
    shared = known(False, source) if memory.value is not None else unknown("it does not tell its memory", source)
    return Gpu("NVIDIA", fact("name"), memory, fact("free_bytes"), shared, compute, fact("driver"))


def _smi_answer(line: str) -> dict[str, Any]:
    driver, name, total, free, compute = (_smi_value(value.strip()) for value in line.rsplit(",", 4))
    return {
        "driver": driver,
        "name": name,
        "memory_bytes": _mebibytes(total),
        "free_bytes": _mebibytes(free),
        "compute": compute,
    }


def _smi_value(text: str) -> Any:
    return {"error": text.strip("[]")} if text.startswith("[") or text in ("N/A", "ERR!") else text


def _mebibytes(value: Any) -> Any:
    return int(value) << 20 if isinstance(value, str) and value.isdigit() else value


def _driver_name(surroundings: Surroundings, folder: str) -> str:
    return keyed_lines(text_or_empty(surroundings, f"{folder}/uevent"), "=").get("DRIVER", "")


def _silent_gpu(surroundings: Surroundings, folder: str, reason: str) -> Gpu:
    driver = _driver_name(surroundings, folder)
    if driver == "nouveau":
        reason = "it runs with nouveau, which cannot compute; install NVIDIA's driver"
    elif not driver:
        reason = f"no driver is loaded for it ({reason})"
    return Gpu(
        vendor="NVIDIA",
        name=_pci_name(surroundings, folder),
        memory_bytes=unknown(reason, "NVML"),
        free_bytes=unknown(reason, "NVML"),
        shared=unknown(reason, "NVML"),
        compute=unknown(reason, "NVML"),
        driver=known(driver, f"{folder}/uevent") if driver else unknown(reason, f"{folder}/uevent"),
    )


def _amd_gpu(surroundings: Surroundings, folder: str) -> Gpu:
    total_path, used_path = f"{folder}/mem_info_vram_total", f"{folder}/mem_info_vram_used"
    total = attempt(total_path, partial(number, surroundings, total_path))
    node = _kfd_node(surroundings, folder)
    shared = _amd_shares(node, total)
    if shared.value:
        extra = number_or_none(surroundings, f"{folder}/mem_info_gtt_total")
        if extra is not None and total.value is not None:
            total = known(total.value + extra, f"{total_path} + mem_info_gtt_total")
        free: Fact[int] = unknown("it shares the main memory", used_path)
    else:
        free = attempt(
            used_path, lambda: None if total.value is None else total.value - number(surroundings, used_path)
        )
    product = text_or_empty(surroundings, f"{folder}/product_name").strip()
    driver = _driver_name(surroundings, folder)
    return Gpu(
        vendor="AMD",
        name=known(product, f"{folder}/product_name") if product else _pci_name(surroundings, folder),
        memory_bytes=total,
        free_bytes=free,
        shared=shared,
        compute=attempt(KFD, partial(_gfx_name, node), "the compute part of amdgpu does not list it"),
        driver=known(driver, f"{folder}/uevent") if driver else unknown("no driver is loaded", f"{folder}/uevent"),
    )


def _kfd_node(surroundings: Surroundings, folder: str) -> dict[str, str]:
    """Return what the compute driver says of the card at that place on the bus."""
    place = re.search(r"([0-9a-f]{2}):([0-9a-f]{2})\.([0-7])$", folder)
    if place is None:
        return {}
    location = int(place[1], 16) << 8 | int(place[2], 16) << 3 | int(place[3])
    for node in surroundings.names(KFD):
        properties = keyed_lines(text_or_empty(surroundings, f"{KFD}/{node}/properties"), " ")
        if properties.get("location_id") == str(location) and properties.get("simd_count", "0") != "0":
            return properties
    return {}


def _gfx_name(node: Mapping[str, str]) -> str | None:
    version = int(node.get("gfx_target_version", 0))
    return f"gfx{version // 10000}{version // 100 % 100:x}{version % 100:x}" if version else None


def _amd_shares(node: Mapping[str, str], total: Fact[int]) -> Fact[bool]:
    if node and (node.get("cpu_cores_count", "0") != "0" or str(_gfx_name(node)).startswith(_INTEGRATED)):
        return known(True, KFD)
    if total.value is not None and total.value > _CARVED_OUT_BYTES:
        return known(False, total.source)
    return unknown("nothing says whether its memory is its own", KFD)


def _intel_gpu(surroundings: Surroundings, folder: str, device: str) -> Gpu:
    integrated = device.endswith("00:02.0")  # where Intel's integrated graphics always are
    reason = "it shares the main memory" if integrated else "Intel's driver does not tell how much it has"
    driver = _driver_name(surroundings, folder)
    return Gpu(
        vendor="Intel",
        name=_pci_name(surroundings, folder),
        memory_bytes=unknown(reason, folder),
        free_bytes=unknown(reason, folder),
        shared=known(integrated, folder),
        compute=unknown("Intel's driver does not tell", folder),
        driver=known(driver, f"{folder}/uevent") if driver else unknown("no driver is loaded", f"{folder}/uevent"),
    )


def _pci_name(surroundings: Surroundings, folder: str) -> Fact[str]:
    """Return the card's name in the list of PCI ids that most distributions install."""
    vendor = text_or_empty(surroundings, f"{folder}/vendor").strip().removeprefix("0x")
    device = text_or_empty(surroundings, f"{folder}/device").strip().removeprefix("0x")
    for path in _PCI_NAMES if re.fullmatch(r"[0-9a-f]{4}:[0-9a-f]{4}", f"{vendor}:{device}") else ():
        listed = re.search(rf"^{vendor}  .*\n(?:[\t#].*\n)*?\t{device}  (.+)$", text_or_empty(surroundings, path), re.M)
        if listed:
            return known(listed[1].strip(), path)
    return unknown(f"the list of PCI ids does not have {vendor}:{device}", folder)
