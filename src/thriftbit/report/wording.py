"""Sentences that the terminal and the page share: machines, workloads, what is missing and why."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from thriftbit.errors import enumeration
from thriftbit.measurement.quantities import QUANTITIES
from thriftbit.report.summary import EVERYTHING, ORIGINAL, Summary
from thriftbit.sizes import describe_bytes

_REASON = "not measurable here: "


def describe_machine(machine: Mapping[str, Any]) -> str:
    """Return "AMD Ryzen 7 7840U, 8 cores, 33.3 GB of memory, Linux 6.12"."""
    facts = [str(machine.get("processor") or machine.get("architecture") or "unknown processor")]
    if cores := machine.get("physical_cores"):
        facts.append(_counted(cores, "core"))
    memory = machine.get("memory_bytes")
    if isinstance(memory, int) and 0 < memory < 10**18:
        facts.append(f"{describe_bytes(memory)} of memory")
    if system := machine.get("system"):
        facts.append(str(system))
    return ", ".join(facts)


def describe_workload(workload: Mapping[str, Any]) -> str:
    """Return "a prompt of 512 tokens, 128 tokens written, on the CPU with 8 threads, 7 repetitions"."""
    facts = []
    if "prompt_tokens" in workload:
        facts.append(f"a prompt of {workload['prompt_tokens']} tokens")
    if "generated_tokens" in workload:
        facts.append(f"{workload['generated_tokens']} tokens written")
    if "device" in workload:
        device = "the CPU" if workload["device"] == "CPU" else str(workload["device"])
        threads = f" with {_counted(workload['threads'], 'thread')}" if "threads" in workload else ""
        facts.append(f"on {device}{threads}")
    if "repetitions" in workload:
        facts.append(_counted(workload["repetitions"], "repetition"))
    return ", ".join(facts)


def _counted(count: Any, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def describe_domain(domain: str) -> str:
    return "everything together" if domain == EVERYTHING else domain


def remarks(summary: Summary) -> list[str]:
    """Return what a reader must know about where the rows come from."""
    sentences = []
    if len(summary.machines) > 1:
        sentences.append(
            f"The numbers come from {len(summary.machines)} machines. Speed and memory are those of "
            f"{describe_machine(summary.machines[0])}."
        )
    if summary.overall not in ("", EVERYTHING):
        sentences.append(f"The loss is that on {summary.overall}: all domains together were not measured.")
    if summary.left_out:
        sentences.append(f"Left out, as they belong to another model: {enumeration(summary.left_out)}.")
    return sentences


def not_measurable(summary: Summary) -> list[str]:
    """Return a sentence for each quantity that could not be measured, with the reason and, if not all, the files."""
    reasons: defaultdict[tuple[str, str], dict[str, None]] = defaultdict(dict)
    for row in summary.rows:
        if row.value is None:
            reason = row.note.removeprefix(_REASON)
            what = QUANTITIES[row.what.removesuffix("_ratio")].label
            reasons[what, reason][summary.label_of(row.subject)] = None
    sentences = []
    for (what, reason), labels in reasons.items():
        of_whom = "" if len(labels.keys() - {ORIGINAL}) >= len(summary.files) else f" of {enumeration([*labels])}"
        sentences.append(f"{what[0].upper()}{what[1:]}{of_whom} could not be measured here: {reason}")
    return sentences
