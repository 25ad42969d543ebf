"""Encoders side by side with llama.cpp's: how fast on one core, and how much of the weights is lost.

    python benchmarks/encode.py [--rounds 15] [--format Q4_K ...]

Each round encodes the same rows with both, one after the other, so that drift of the machine hits both; the ratio is
the median over rounds of (their time / our time), with its lowest and highest quarter. Losses are compared block by
block on gaussian and heavy-tailed rows and the weights of the demo model: decibels less squared error (weighted by
importance where there is one), and in how many of the blocks llama.cpp came out lower by more than one part in a
million.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from peers import llama_cpp
from peers.weights import KINDS, importance, weights

from thriftbit.formats import FORMATS, Format

SPEED_ROWS, LOSS_ROWS, WIDTH = 128, 512, 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--format", nargs="*", default=list(FORMATS))
    parser.add_argument("--markdown", action="store_true", help="the README's table as well")
    arguments = parser.parse_args()
    results = []
    print("million weights a second on one core: ours / llama.cpp's, ratio; loss: decibels lower, blocks higher")
    for name in arguments.format:
        for column_weights in (None, importance(WIDTH)):
            results.append(compare(FORMATS[name], column_weights, arguments.rounds))
            print(described(results[-1]), flush=True)
    if arguments.markdown:
        print(markdown(results))
    print(json.dumps(results))


def compare(format: Format, column_weights: NDArray[np.float32] | None, rounds: int) -> dict[str, Any]:
    rows = weights("gaussian", SPEED_ROWS, WIDTH)
    ours, theirs = [], []
    for _ in range(rounds):
        ours.append(seconds(lambda: format.encode(rows, column_weights)))
        theirs.append(seconds(lambda: llama_cpp.encode(rows, format, column_weights)))
    low, middle, high = np.percentile(np.divide(theirs, ours), [25, 50, 75])
    result = {
        "format": format.name,
        "importance": column_weights is not None,
        "million_weights_per_second": round(rows.size / 1e6 / float(np.median(ours)), 1),
        "llama_cpp_million_weights_per_second": round(rows.size / 1e6 / float(np.median(theirs)), 1),
        "speed_ratio": [round(float(x), 2) for x in (low, middle, high)],
    }
    for kind in KINDS:
        our_loss, their_loss = losses(format, weights(kind, LOSS_ROWS, WIDTH), column_weights)
        exact = not their_loss.any()
        result[kind] = {
            "decibels_lower": 0.0 if exact else round(10 * float(np.log10(their_loss.sum() / our_loss.sum())), 3),
            "blocks_higher": int((our_loss > their_loss * (1 + 1e-6)).sum()),
            "blocks": len(our_loss),
            "highest_ratio": 1.0 if exact else round(float((our_loss / np.maximum(their_loss, 1e-30)).max()), 4),
        }
    return result


def losses(
    format: Format, rows: NDArray[np.float32], column_weights: NDArray[np.float32] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (weighted) squared error of every block, ours and llama.cpp's."""
    encoded = format.encode(rows, column_weights), llama_cpp.encode(rows, format, column_weights)
    factor = 1.0 if column_weights is None else column_weights
    errors = [factor * (format.decode(blocks).astype(np.float64) - rows) ** 2 for blocks in encoded]
    size = max(format.block_size, 32)
    ours, theirs = (error.reshape(-1, size).sum(axis=1) for error in errors)
    return ours, theirs


def seconds(call: Callable[[], object]) -> float:
    """Return the seconds of processor time that a call takes. Both encoders use the calling thread alone, so other
    work on the machine does not count."""
    started = time.thread_time()
    call()
    return time.thread_time() - started


def described(result: dict[str, Any]) -> str:
    low, middle, high = result["speed_ratio"]
    speed = f"{result['million_weights_per_second']:7.1f} / {result['llama_cpp_million_weights_per_second']:6.1f}"
    loss = "  ".join(
        f"{kind} {result[kind]['decibels_lower']:.2f} dB, {result[kind]['blocks_higher']} of {result[kind]['blocks']}"
        for kind in KINDS
    )
    weighted = "importance" if result["importance"] else "plain"
    return f"{result['format']:7}{weighted:11}{speed}  {middle:5.2f}x ({low:.2f} to {high:.2f})   {loss}"


def markdown(results: list[dict[str, Any]]) -> str:
    """Return a table with a row for each format whose encoder has a choice."""
    lines = ["| format | speed | with importance | error | with importance |", "| --- | ---: | ---: | ---: | ---: |"]
    for plain, weighted in zip(results[::2], results[1::2], strict=True):
        if FORMATS[plain["format"]].block_size > 1:
            speeds = [f"{result['speed_ratio'][1]:.1f}×" for result in (plain, weighted)]
            losses = [10 ** (-result["demo model"]["decibels_lower"] / 10) - 1 for result in (plain, weighted)]
            cells = [plain["format"], *speeds, *(f"{loss:.0%}".replace("-", "−") for loss in losses)]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
