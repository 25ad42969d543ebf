"""How well one measured level predicts what all others lose, from the weights alone; how far off published losses are.

    python benchmarks/losses.py [MODEL ...] [--preset Q8_0 Q6_K ...] [--from Q4_K_M] [--windows 2]

Without arguments: the model in the box. Every preset is encoded block by block, without importance data, and judged by
its KL divergence from the original on the package's evaluation texts. Then each other preset is predicted from the one
that counts as measured (`quantization/weight_error.py`), and from published tables of other models
(`advice/literature.py`). Levels whose files are the same are judged once. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping
from dataclasses import replace
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from peers.judging import Judge

from thriftbit import Model, Tensor, make_plan, open_model
from thriftbit.advice.literature import literature_loss
from thriftbit.demo import DEMO_MODEL
from thriftbit.formats import format_named
from thriftbit.network.weights import Weights
from thriftbit.quantization.presets import PRESETS
from thriftbit.quantization.weight_error import predicted_losses, weight_errors
from thriftbit.runtime.tokenizer import Tokenizer

LEVELS = ("Q8_0", "Q6_K", "Q5_K_M", "Q5_K_S", "Q4_K_M", "Q4_K_S", "IQ4_XS", "Q4_0", "Q3_K_M", "IQ3_M", "Q3_K_S")
LOW_LEVELS = ("IQ3_XXS", "Q2_K", "IQ2_M", "IQ2_XS", "IQ2_XXS")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=[str(DEMO_MODEL)])
    parser.add_argument("--preset", nargs="+", default=[name for name in (*LEVELS, *LOW_LEVELS) if name in PRESETS])
    parser.add_argument("--from", dest="known", default="Q4_K_M", help="the level that counts as measured")
    parser.add_argument("--windows", type=int, default=2, help="of 512 tokens to judge on, for each domain")
    options = parser.parse_args()
    print(
        json.dumps({model: examine(model, options.preset, options.known, options.windows) for model in options.models})
    )


def examine(source: str, presets: list[str], known: str, windows: int) -> dict[str, Any]:
    """Return for every preset what was measured and predicted, and the errors of all but the one that was known."""
    model = open_model(source)
    measured = measured_losses(model, presets, windows)
    errors = weight_errors(model, measured)
    predicted = predicted_losses(errors, {known: measured[known]})
    print(f"{source}: measured, predicted from {known}, published for other models; nats a token")
    rows = {}
    for preset, loss in sorted(measured.items(), key=lambda item: item[1]):
        found = literature_loss(preset, model.parameters)
        low, high = (math.log1p(end or 0.0) for end in ((found.low, found.high) if found else (0.0, 0.0)))
        rows[preset] = {
            "measured": loss,
            "predicted": predicted[preset],
            "off": abs(predicted[preset] / loss - 1),
            "published": [low, high],
            "is_inside": low <= loss <= high,
        }
        off = f"{predicted[preset] / loss - 1:+.0%}"
        print(f"  {preset:8} {loss:.5f}  {predicted[preset]:.5f} {off:>6}   {low:.5f} to {high:.5f}", flush=True)
    others = [row for preset, row in rows.items() if preset != known]
    summary = {
        "median_off": median(row["off"] for row in others),
        "inside_published": sum(row["is_inside"] for row in others) / len(others),
        "published_span": median(row["published"][1] / max(row["published"][0], 1e-6) for row in others),
    }
    print(
        f"  median error of {len(others)} levels {summary['median_off']:.0%}; the published range held "
        f"{summary['inside_published']:.0%} of them, its high end {summary['published_span']:.1f} times its low end"
    )
    return {"known": known, "levels": rows} | summary


def measured_losses(model: Model, presets: list[str], windows: int) -> dict[str, float]:
    """Return mean KL divergence of each preset, of levels that are the same only the first."""
    plans: dict[tuple[str, ...], str] = {}
    for preset in presets:
        formats = make_plan(model, preset, importance=PRESETS[preset].wants_importance).formats
        plans.setdefault(tuple(formats.values()), preset)
    with Tokenizer(model.metadata, model.source) as tokenizer:
        judge = Judge(model, tokenizer, windows)
    names = [tensor.name for tensor in model.tensors]
    files = [encoded(model, dict(zip(names, formats, strict=True))) for formats in plans]
    verdicts = judge.judge(files)
    return {
        preset: float(verdict.summary["divergence"]) for preset, verdict in zip(plans.values(), verdicts, strict=True)
    }


def encoded(model: Model, formats: Mapping[str, str]) -> Weights:
    """Return the weights as a file in these formats would have them, encoded when they are read."""

    def as_encoded(tensor: Tensor) -> Tensor:
        format = format_named(formats[tensor.name])

        def read(start: int, stop: int) -> NDArray[np.float32]:
            return format.decode(format.encode(tensor.load(start, stop), threads=2))

        return tensor if format.block_size == 1 else replace(tensor, read=read)

    return Weights(replace(model, tensors=tuple(map(as_encoded, model.tensors))))


if __name__ == "__main__":
    main()
