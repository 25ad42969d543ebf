"""The disk where models are kept: its kind, and how much is free.

On Linux the kind follows from the mount's device: /sys/block says whether the disk rotates. A device mapper (LVM,
encryption) leads to another device, which is followed. Network and memory file systems are known by their names.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from thriftbit.machine.facts import Disk, Fact, known, unknown
from thriftbit.machine.surroundings import Surroundings, attempt, keyed_lines, text_or_empty
from thriftbit.machine.unreadable import UnreadableError

MOUNTS = "/proc/self/mountinfo"
_NETWORK = ("nfs", "nfs4", "cifs", "smb3", "fuse.sshfs", "9p", "virtiofs", "ceph", "glusterfs", "lustre")
_MEMORY = ("tmpfs", "ramfs")


def existing_folder(path: Path) -> Path:
    """Return the folder itself, or the nearest folder above it that exists."""
    return next((folder for folder in (path, *path.parents) if folder.is_dir()), Path())


def disk_space(folder: Path) -> tuple[Fact[int], Fact[int]]:
    """Return the total and free bytes of the disk with that folder."""

    def usage(what: str) -> int:
        try:
            return int(getattr(shutil.disk_usage(folder), what))
        except OSError as error:
            raise UnreadableError(f"cannot be read: {error.strerror}") from None

    return attempt("statvfs", lambda: usage("total")), attempt("statvfs", lambda: usage("free"))


def linux_disk(surroundings: Surroundings, folder: str, total: Fact[int], free: Fact[int]) -> Disk:
    """Return what is known of the disk.

    folder: an absolute path, as /proc has it.
    """
    found = attempt(MOUNTS, lambda: _mount(surroundings.text(MOUNTS), folder), "no mount holds it")
    if found.value is None:
        return Disk(unknown(found.reason, MOUNTS), unknown(found.reason, MOUNTS), total, free)
    device, filesystem, mounted = found.value
    return Disk(_kind(surroundings, device, filesystem, mounted), known(filesystem, MOUNTS), total, free)


def macos_disk(surroundings: Surroundings, total: Fact[int], free: Fact[int]) -> Disk:
    information = attempt("diskutil", lambda: keyed_lines(surroundings.output("diskutil", "info", "/")))
    values = information.value or {}
    solid, protocol = values.get("Solid State"), values.get("Protocol", "")
    kind = {"Yes": "SSD", "No": "hard disk"}.get(solid or "")
    if kind == "SSD" and ("PCI" in protocol or "Apple Fabric" in protocol):
        kind = "NVMe SSD"
    personality = values.get("File System Personality") or values.get("Type (Bundle)")
    missing = information.reason or "not said"
    return Disk(
        known(kind, "diskutil") if kind else unknown(missing, "diskutil"),
        known(personality, "diskutil") if personality else unknown(missing, "diskutil"),
        total,
        free,
    )


def _mount(mounts: str, folder: str) -> tuple[str, str, str] | None:
    """Return, for example, "8:1", "ext4", "/dev/sda1": the mount that holds the folder; the last one where several lie
    over one another."""
    best: tuple[int, tuple[str, str, str]] | None = None
    for line in mounts.splitlines():
        before, separator, after = line.partition(" - ")
        words, details = before.split(), after.split()
        if not separator or len(words) < 5 or len(details) < 2:
            continue
        place = words[4].replace("\\040", " ").rstrip("/")
        if (folder == place or folder.startswith(f"{place}/")) and (best is None or len(place) >= best[0]):
            best = len(place), (words[2], details[0], details[1])
    return best and best[1]


def _kind(surroundings: Surroundings, device: str, filesystem: str, mounted: str) -> Fact[str]:
    if filesystem in _NETWORK:
        return known("network", MOUNTS)
    if filesystem in _MEMORY:
        return known("memory", MOUNTS)
    if filesystem == "overlay":
        return unknown("a container's file system does not show its disk", MOUNTS)
    name = _block_name(surroundings, device, mounted)
    if name is None:
        return unknown(f"no block device is shown for {filesystem}", "/sys/dev/block")
    path = f"/sys/block/{name}/queue/rotational"
    turns = text_or_empty(surroundings, path).strip()
    if turns not in ("0", "1"):
        return unknown("it does not say whether it turns", path)
    if name.startswith("mmcblk"):
        return known("SD card or eMMC", path)
    if name.startswith(("vd", "xvd")):
        return known("virtual disk", path)
    return known("hard disk" if turns == "1" else "NVMe SSD" if name.startswith("nvme") else "SSD", path)


def _block_name(surroundings: Surroundings, device: str, mounted: str) -> str | None:
    """Return, for example, "nvme0n1": the whole disk behind a partition, a volume or an encrypted device."""
    uevent = keyed_lines(text_or_empty(surroundings, f"/sys/dev/block/{device}/uevent"), "=")
    name = uevent.get("DEVNAME") or (mounted.removeprefix("/dev/") if mounted.startswith("/dev/") else "")
    for _ in range(4):
        under = surroundings.names(f"/sys/block/{name}/slaves") if name else []
        if not under:
            break
        name = under[0]
    if not name:
        return None
    whole = re.sub(r"p\d+$", "", name) if re.match(r"nvme|mmcblk", name) else re.sub(r"(?<=[a-z])\d+$", "", name)
    for candidate in (name, whole):
        if text_or_empty(surroundings, f"/sys/block/{candidate}/queue/rotational"):
            return candidate
    return whole
