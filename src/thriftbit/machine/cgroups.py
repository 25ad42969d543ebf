"""What a container or a service manager allows this process: memory and processor time, in Linux's control groups.

Both versions of control groups are in use. Limits hold for a group and everything in it, so the lowest limit between
our group and the root counts. In a container the path in /proc/self/cgroup may be the host's and not exist. Then its
parents are tried, up to the mount itself, which is our own group.
"""

from __future__ import annotations

from collections.abc import Iterator

from thriftbit.machine.facts import Fact, known, unknown
from thriftbit.machine.surroundings import Surroundings, attempt, keyed_lines, number_or_none, text_or_empty

MOUNT = "/sys/fs/cgroup"
_NO_LIMIT_BYTES = 1 << 60  # version 1 writes its "none" as the largest number of whole pages


def memory_limit(surroundings: Surroundings) -> Fact[int]:
    """Return the limit in bytes; unknown where there is none."""
    found = _lowest_memory_limit(surroundings)
    return known(found[0], _source(found[1])) if found else unknown("no limit is set", MOUNT)


def memory_left(surroundings: Surroundings) -> Fact[int]:
    """Return the bytes until the limit is reached. Cached files count as free: the system drops them first."""
    found = _lowest_memory_limit(surroundings)
    if not found:
        return unknown("no limit is set", MOUNT)
    limit, path = found
    return attempt(_source(path), lambda: _left(surroundings, limit, path.rpartition("/")[0]), "use is not told")


def _lowest_memory_limit(surroundings: Surroundings) -> tuple[int, str] | None:
    limits = [
        (limit, path)
        for folder in (*_folders(surroundings, ""), *_folders(surroundings, "memory"))
        for path in (f"{folder}/memory.max", f"{folder}/memory.limit_in_bytes")
        if (limit := number_or_none(surroundings, path)) is not None and 0 < limit < _NO_LIMIT_BYTES
    ]
    return min(limits, default=None)


def _left(surroundings: Surroundings, limit: int, folder: str) -> int | None:
    uses = (number_or_none(surroundings, f"{folder}/{name}") for name in ("memory.current", "memory.usage_in_bytes"))
    used = next((use for use in uses if use is not None), None)
    if used is None:
        return None
    statistics = keyed_lines(text_or_empty(surroundings, f"{folder}/memory.stat"), " ")
    files = sum(
        int(statistics.get(f"total_{kind}", statistics.get(kind, "0"))) for kind in ("inactive_file", "active_file")
    )
    return max(0, min(limit, limit - used + files))


def _source(path: str) -> str:
    """Return the path without the groups' names, which may name users and their programs."""
    return f"{path.rpartition('/')[2]} of the control group"


def core_quota(surroundings: Surroundings) -> Fact[float]:
    """Return the quota in cores, which may be 1.5; unknown where there is none."""
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
    if not quotas:
        return unknown("no quota is set", MOUNT)
    cores, path = min(quotas)
    return known(cores, _source(path))


def _folders(surroundings: Surroundings, controllers: str) -> Iterator[str]:
    """Yield the folders from our group's up to the mount.

    controllers: "" for version 2, the name of the folder for version 1.
    """
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
