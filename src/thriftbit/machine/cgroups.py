"""What a container or a service manager allows this process: memory and processor time, in Linux's control groups.

Both versions are in use. Limits hold for a group and everything in it, so that the lowest on the way from our group up
to the root counts. Inside a container the path in /proc/self/cgroup may be the host's, which is not there; its parents
are tried, down to the mount itself: our own group, then.
"""

from __future__ import annotations

from collections.abc import Iterator

from thriftbit.machine.facts import Fact, known, unknown
from thriftbit.machine.surroundings import Surroundings, keyed_lines, number_or_none, text_or_empty

MOUNT = "/sys/fs/cgroup"
_NO_LIMIT_BYTES = 1 << 60  # version 1 writes its "none" as the largest number of whole pages


def memory_limit(surroundings: Surroundings) -> Fact[int]:
    """-> bytes; unknown where there is no limit"""
    limits = [
        (limit, path)
        for folder in (*_folders(surroundings, ""), *_folders(surroundings, "memory"))
        for path in (f"{folder}/memory.max", f"{folder}/memory.limit_in_bytes")
        if (limit := number_or_none(surroundings, path)) is not None and 0 < limit < _NO_LIMIT_BYTES
    ]
    if not limits:
        return unknown("no limit is set", MOUNT)
    return known(*min(limits))


def memory_left(surroundings: Surroundings) -> Fact[int]:
    """-> bytes until the limit is reached. What the group holds of files counts as free: the system drops it first."""
    limit = memory_limit(surroundings)
    if limit.value is None:
        return limit
    folder = limit.source.rpartition("/")[0]
    used = number_or_none(surroundings, f"{folder}/memory.current")
    if used is None:
        used = number_or_none(surroundings, f"{folder}/memory.usage_in_bytes")
    if used is None:
        return unknown("how much of the limit is used is not said", folder)
    statistics = keyed_lines(text_or_empty(surroundings, f"{folder}/memory.stat"), " ")
    files = sum(
        int(statistics.get(f"total_{kind}", statistics.get(kind, "0"))) for kind in ("inactive_file", "active_file")
    )
    return known(max(0, min(limit.value, limit.value - used + files)), folder)


def core_quota(surroundings: Surroundings) -> Fact[float]:
    """-> cores' worth of time, perhaps 1.5; unknown where there is no quota"""
    quotas: list[tuple[float, str]] = []
    for folder in _folders(surroundings, ""):
        words = text_or_empty(surroundings, f"{folder}/cpu.max").split()
        if len(words) == 2 and all(word.isdigit() for word in words) and int(words[1]):
            quotas.append((int(words[0]) / int(words[1]), f"{folder}/cpu.max"))
    for folder in (*_folders(surroundings, "cpu"), *_folders(surroundings, "cpu,cpuacct")):
        quota = number_or_none(surroundings, f"{folder}/cpu.cfs_quota_us")
        period = number_or_none(surroundings, f"{folder}/cpu.cfs_period_us")
        if quota and period and quota > 0:
            quotas.append((quota / period, f"{folder}/cpu.cfs_quota_us"))
    return known(*min(quotas)) if quotas else unknown("no quota is set", MOUNT)


def _folders(surroundings: Surroundings, controllers: str) -> Iterator[str]:
    """-> from our group's folder up to the mount. controllers: "" for version 2, the name of the folder in version 1"""
    wanted = set(filter(None, controllers.split(",")))
    path = ""
    for line in text_or_empty(surroundings, "/proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        named, _, place = rest.partition(":")
        if set(filter(None, named.split(","))) >= wanted and bool(named) == bool(wanted):
            path = place
    mount = f"{MOUNT}/{controllers}" if controllers else MOUNT
    parts = [part for part in path.split("/") if part not in ("", "..")]
    for length in range(len(parts), -1, -1):
        yield "/".join([mount, *parts[:length]])
