"""`thriftbit quantize --prove`: what goes with it, and the verdict, for people and for programs."""

from __future__ import annotations

import hashlib
import math
import shlex
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import thriftbit
from thriftbit.cli.printing import print_json, say
from thriftbit.cli.progress import ProgressLine
from thriftbit.containers.atomic_file import folder_for
from thriftbit.errors import UsageError
from thriftbit.sizes import counted, describe_bytes, describe_seconds
from thriftbit.strangers import quoted

if TYPE_CHECKING:
    from thriftbit import Make, Model
    from thriftbit.advice.budget import Request
    from thriftbit.advice.promises import Tried
    from thriftbit.advice.proving import Proof
    from thriftbit.advice.wishes import Wishes
    from thriftbit.measurement.measurement import Measurement

EXIT_CODES = {"met": 0, "missed": 3, "open": 4}


def check_wishes(request: Request, others: Mapping[str, object]) -> None:
    """others: options that choose a file, or make none. Raises UsageError for what does not go with --prove."""
    others = {**others, "--size": request.size_bytes, "--bpw": request.bits_per_weight}
    for option, value in others.items():
        if value:
            raise UsageError(f"--prove chooses the file by --min-speed and --max-loss; leave out {option}")
    if request.tokens_per_second is None and request.max_loss is None:
        raise UsageError("--prove proves a wish: give --min-speed, --max-loss or both")


def describe_effort(effort: str, text: Path | None) -> str:
    """Return what decides the codes of a file, beside its formats."""
    return f"{effort} on {hashlib.sha256(text.read_bytes()).hexdigest()[:16]}" if text else effort


def prove_and_print(
    model: Model,
    request: Request,
    effort: str,
    make: Make,
    output: Path | None,
    name: str,
    force: bool,
    as_json: bool,
) -> int:
    """effort: of `describe_effort`. Returns the exit code of the verdict."""
    wishes = thriftbit.Wishes(
        min_speed=request.tokens_per_second, max_loss=request.max_loss, context_tokens=request.context_tokens
    )
    with folder_for(output or Path("file")), ProgressLine() as line:
        proof = thriftbit.prove(
            model,
            wishes,
            effort=effort,
            make=make,
            output=output,
            name=name,
            force=force,
            command=shlex.join(["thriftbit", *sys.argv[1:]]),
            progress=line.update,
        )
    return print_proof(proof, as_json)


def print_proof(proof: Proof, as_json: bool) -> int:
    """Return the exit code: 0 all wishes are met, 3 one is missed, 4 it cannot be told yet."""
    if as_json:
        print_json(proof_document(proof))
        return EXIT_CODES[proof.verdict]
    for each in proof.tried:
        say(f"{each.preset} ({describe_bytes(each.size_bytes)}): {'; '.join(_facts(each, proof.wishes))}")
    say("")
    say(_verdict(proof), style="bold")
    for sentence in what_would_have_to_give(proof):
        say(sentence)
    files = "no file" if not proof.made else counted(proof.made, "file")
    say(f"Made {files} in {describe_seconds(proof.seconds)}.")
    if proof.chosen.speed.value is not None:
        context = proof.chosen.speed.settings["context_tokens"]
        say(f"\nNext:\n  thriftbit chat {quoted(str(proof.path))} --context {context}")
    return EXIT_CODES[proof.verdict]


def proof_document(proof: Proof) -> dict[str, Any]:
    return {
        "verdict": proof.verdict,
        "chosen": proof.chosen.preset,
        "output": str(proof.path),
        "size_bytes": proof.chosen.size_bytes,
        "files_made": proof.made,
        "seconds": round(proof.seconds, 2),
        "wishes": {"min_speed": proof.wishes.min_speed, "max_loss": proof.wishes.max_loss},
        "tried": [_tried_document(each, proof.wishes) for each in proof.tried],
        "would_have_to_give": list(what_would_have_to_give(proof)),
    }


def _tried_document(each: Tried, wishes: Wishes) -> dict[str, Any]:
    from thriftbit.advice.proof_measuring import BUSY

    loss = each.loss
    return {
        "precision": each.preset,
        "size_bytes": each.size_bytes,
        "measured_before": each.was_known,
        "tokens_per_second": _interval(each.speed, 0.0) | {"wish": each.of_speed(wishes)},
        "other_programs_used_cores": each.speed.detail.get(BUSY),
        "loss": _interval(loss, 1.0) | {"wish": each.of_loss(wishes)} if loss else None,
    }


def _interval(row: Measurement, zero: float) -> dict[str, Any]:
    ends = {"value": row.value, "low": row.low, "high": row.high}
    return {name: None if end is None else end - zero for name, end in ends.items()} | {"interval": row.interval}


def _facts(each: Tried, wishes: Wishes) -> Iterator[str]:
    """Yield what was measured of a file, and of each wish whether it is met."""
    from thriftbit.advice.proof_measuring import BUSY, DISTURBED

    words = {"met": "met", "missed": "missed", "open": "cannot tell yet"}
    if each.speed.value is None:
        yield f"does not run here: {each.speed.note}"
    else:
        wish = f", wished {wishes.min_speed:g}: {words[each.of_speed(wishes)]}" if wishes.min_speed is not None else ""
        yield f"{_between(each.speed.value, each.speed.low, each.speed.high, '{:.3g}')} tokens/s{wish}"
    busy = each.speed.detail.get(BUSY) or 0.0
    if busy >= DISTURBED:
        yield f"measured while other programs used {busy:.1f} cores"
    lost = each.share_lost()
    if each.loss is not None and lost is not None:
        low, high = (None if end is None else 100 * (end - 1) for end in (each.loss.low, each.loss.high))
        limit = wishes.max_loss
        wish = f", wished {100 * limit:.3g}%: {words[each.of_loss(wishes)]}" if limit is not None else ""
        yield f"loses {_between(100 * lost, low, high, '{:.2f}')}%{wish}"


def _between(value: float, low: float | None, high: float | None, digits: str) -> str:
    interval = "" if low is None or high is None else f" ({digits.format(low)} to {digits.format(high)})"
    return digits.format(value) + interval


def _verdict(proof: Proof) -> str:
    from thriftbit.advice.proving import MOST_FILES

    name = proof.chosen.preset
    if proof.verdict == "met":
        wishes = "Both wishes are met" if proof.wishes.min_speed and proof.wishes.max_loss is not None else "It is met"
        return f"{wishes} by {name}: {proof.path}"
    if proof.verdict == "open":
        return f"It cannot be told yet whether {name} meets the wishes; it comes nearest: {proof.path}"
    more = " By what was measured, no other would either." if len(proof.tried) < MOST_FILES else ""
    return f"No file that was measured meets the wishes here.{more} {name} comes nearest: {proof.path}"


def what_would_have_to_give(proof: Proof) -> Iterator[str]:
    """Yield for each wish, what it would have to be so that a measured file meets both."""
    if proof.verdict == "met":
        return
    wishes = proof.wishes
    faithful = [each for each in proof.tried if each.of_loss(wishes) == "met" and each.speed.value]
    fast = [each for each in proof.tried if each.of_speed(wishes) == "met" and each.loss and each.loss.value]
    if wishes.min_speed is not None and faithful:
        best = max(faithful, key=lambda each: each.speed.low or each.speed.value or 0.0)
        yield f"With --min-speed {_floor(best.speed.low or best.speed.value or 0.0)}, {best.preset} meets them."
    if wishes.max_loss is not None and fast:
        best = min(fast, key=_worst_loss)
        yield f"With --max-loss {math.ceil(1000 * _worst_loss(best)) / 10:g}%, {best.preset} meets them."


def _worst_loss(each: Tried) -> float:
    assert each.loss is not None
    return (each.loss.high or each.loss.value or 1.0) - 1


def _floor(speed: float) -> str:
    """Return the speed, rounded down to two digits."""
    step = 10.0 ** (math.floor(math.log10(speed)) - 1) if speed > 0 else 1.0
    return f"{math.floor(speed / step) * step:g}"
