"""What calibrated and tuned rounding save at the same bytes, against llama.cpp's encoder with the same text.

    python benchmarks/quality.py [MODEL] [--calibrate-on prose.txt code.txt ...] [--preset Q4_0 Q4_K_M ...]
                                 [--effort plain calibrated tuned] [--calibration-windows 40] [--limit] [--keep FOLDER]

Without arguments: the model and the texts in the box, the presets that the README claims something about, calibrated
and tuned, on as much text as `thriftbit quantize` takes for it.

For every preset, each tensor gets the format that the preset gives it, once from llama.cpp's encoder with an importance
matrix (mean squares of inputs over the calibration text), once from `encode_calibrated` or `tune`; for plain, both
without any data. All are judged by the KL divergence from the original on the package's evaluation texts, of which
nothing may be in the calibration text: per domain, with a 95% interval of the ratio from a bootstrap over windows, the
same windows for all. Each encoder has a process of its own with one thread, which tells what it took. With --limit, how
many decibels each matrix is above the theoretical limit for its bits (peers/limit.py). The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from operator import itemgetter
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from peers.encoders import CALIBRATED, LLAMA_CPP, LLAMA_CPP_ALONE, PLAIN_ALONE, TUNED, Encoded, calibrated, encoded
from peers.judging import Judge, Verdict, cut_windows, describe
from peers.limit import decibels_above_limit

from thriftbit import make_plan, open_model
from thriftbit.demo import DEMO_MODEL
from thriftbit.formats import FORMATS, format_named
from thriftbit.quantization import calibration_text, tuned
from thriftbit.quantization.calibration_data import Calibration
from thriftbit.quantization.calibration_text import calibration_windows
from thriftbit.quantization.rounding import can_round
from thriftbit.runtime.tokenizer import Tokenizer
from thriftbit.sources.model import Model

CLAIMED = ["Q4_K_M", "Q3_K_M", "Q2_K", "Q4_0", "Q4_1", "IQ4_NL", "Q5_1"]
CODEBOOKS = ["IQ3_XXS", "IQ3_S", "IQ3_M", "IQ2_XXS", "IQ2_XS", "IQ2_M", "IQ1_M"]
# Ratios that must be reached, and goals, by the first letters of the preset's name
BARS = {
    CALIBRATED: {"IQ3": (0.75, 0.60), "IQ2": (0.75, 0.60), "IQ1": (0.75, 0.60)},
    TUNED: {"IQ3": (0.60, 0.45), "IQ2": (0.50, 0.35), "IQ1": (0.50, 0.30)},
}
PLAIN = "plain"
# An effort, the encoder it is compared with, and the windows it is calibrated on
OURS = {PLAIN: PLAIN_ALONE, CALIBRATED: CALIBRATED, TUNED: TUNED}
THEIRS = {PLAIN: LLAMA_CPP_ALONE, CALIBRATED: LLAMA_CPP, TUNED: LLAMA_CPP}
WINDOWS = {CALIBRATED: calibration_text.WINDOWS, TUNED: tuned.WINDOWS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default=str(DEMO_MODEL))
    parser.add_argument("--calibrate-on", nargs="+", metavar="FILE")
    parser.add_argument("--calibration-windows", type=int, help="of 512 tokens, from all files together")
    parser.add_argument("--preset", nargs="+", default=CLAIMED + CODEBOOKS)
    parser.add_argument("--effort", nargs="+", choices=list(OURS), default=[CALIBRATED, TUNED])
    parser.add_argument("--windows", type=int, default=6, help="of 512 tokens to judge on, for each domain")
    parser.add_argument("--limit", action="store_true", help="distances to the theoretical limit as well")
    parser.add_argument("--keep", type=Path, help="folder for all that is made; what is there is used again")
    arguments = parser.parse_args()
    assert can_round(FORMATS["Q4_0"]), "the rounding kernels are not compiled; install the package again"
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        results = _compare(arguments, arguments.keep or Path(temporary))
    print(json.dumps({"model": arguments.model} | results))


def _compare(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    model, results = open_model(arguments.model), []
    with Tokenizer(model.metadata, model.source) as tokenizer:
        judge = Judge(model, tokenizer, arguments.windows)
        text = {
            effort: _text(model, tokenizer, arguments, WINDOWS[effort])
            for effort in arguments.effort
            if effort in WINDOWS
        }
    calibrations, costs = dict[str, Calibration](), dict[str, Any]()
    for effort, windows in text.items():
        calibrations[effort], cost = calibrated(arguments.model, windows, folder / str(len(windows)))
        if cost:
            print(f"calibrated on {calibrations[effort].tokens} tokens in {cost.words}", flush=True)
            costs[effort] = asdict(cost)
    for preset in arguments.preset:
        files = _files(arguments, model, calibrations, preset, folder / preset)
        verdicts = judge.judge([file.weights(model) for file in files.values()])
        judged = dict(zip(files, verdicts, strict=True))
        results.append({"preset": preset, "encoders": _results(arguments.effort, preset, files, judged)})
        if arguments.limit and calibrations:
            results[-1]["decibels"] = _distances(model, calibrations, files)
    _print_table(results)
    tokens = {effort: calibration.tokens for effort, calibration in calibrations.items()}
    return {"tokens": tokens, "calibrating": costs, "presets": results}


def _text(model: Model, tokenizer: Tokenizer, arguments: argparse.Namespace, usual: int) -> NDArray[np.int64]:
    count = arguments.calibration_windows or usual
    if not arguments.calibrate_on:
        return calibration_windows(model, None, count)
    each = -(-count // len(arguments.calibrate_on))
    return np.concatenate([cut_windows(tokenizer, path, each) for path in arguments.calibrate_on])


def _files(
    arguments: argparse.Namespace, model: Model, calibrations: Mapping[str, Calibration], preset: str, folder: Path
) -> dict[str, Encoded]:
    """Return one file for each encoder. llama.cpp's importance matrix is of the text that the greatest effort has."""
    files = dict[str, Encoded]()
    for effort in arguments.effort:
        for encoder in (THEIRS[effort], OURS[effort]):
            known = effort if encoder == OURS[effort] else arguments.effort[-1]
            calibration = calibrations[known].folder if effort in WINDOWS else None
            plan = make_plan(model, preset, importance=effort in WINDOWS)
            if encoder not in files:
                files[encoder] = encoded(arguments.model, plan, encoder, calibration, folder)
    return files


def _results(
    efforts: Sequence[str], preset: str, files: Mapping[str, Encoded], judged: Mapping[str, Verdict]
) -> list[dict[str, Any]]:
    results = {
        name: {"encoder": name, "cost": asdict(file.cost), "kept_plain": file.kept_plain} | judged[name].summary
        for name, file in files.items()
    }
    for effort in efforts:
        theirs, ours = judged[THEIRS[effort]], judged[OURS[effort]]
        results[OURS[effort]] |= ours.against(theirs)
        file = files[OURS[effort]]
        print(
            f"{preset:8s} {effort:10s} {describe(theirs, ours)}; {len(file.kept_plain)} kept plain; {file.cost.words}; "
            f"{files[THEIRS[effort]].encoder}: {files[THEIRS[effort]].cost.words}",
            flush=True,
        )
    return list(results.values())


def _print_table(results: Sequence[Mapping[str, Any]]) -> None:
    """Print every ratio beside its bar: of all text, of the worst domain, and of the 99.9% quantile."""
    print("| preset | effort | ratio | must | goal | worst domain | 99.9% |")
    print("| --- | --- | ---: | ---: | ---: | --- | ---: |")
    for result in results:
        preset, by_name = result["preset"], {encoder["encoder"]: encoder for encoder in result["encoders"]}
        for effort, name in OURS.items():
            if "ratio" not in (ours := by_name.get(name, {})):
                continue
            must, goal = BARS.get(effort, {}).get(preset[:3], ("", ""))
            domain, ratio = max(((d, part["ratio"]) for d, part in ours["domains"].items()), key=itemgetter(1))
            tail = ours["divergence_999"] / by_name[THEIRS[effort]]["divergence_999"]
            numbers = f"{ours['ratio']:.3f} | {must} | {goal} | {domain} {ratio:.2f} | {tail:.2f}"
            print(f"| {preset} | {effort} | {numbers} |")


def _distances(
    model: Model, calibrations: Mapping[str, Calibration], files: Mapping[str, Encoded]
) -> dict[str, dict[str, float]]:
    """Return for each matrix with data, by the encoder. Not of what is tuned: that aims at another matrix than the
    original's, to make up for others."""
    calibration = calibrations.get(CALIBRATED) or next(iter(calibrations.values()))
    distances: dict[str, dict[str, float]] = {name: {} for name in files if name != TUNED}
    for tensor in model.tensors:
        if tensor.name not in calibration.names:
            continue
        weights, curvature = tensor.load(), calibration.curvature(tensor.name)
        for name, own in distances.items():
            bits = format_named(files[name].plan.formats[tensor.name]).bits_per_weight
            errors = weights - files[name].decoded(tensor, 0, tensor.rows)
            own[tensor.name] = decibels_above_limit(weights, errors, curvature, bits)
    for name, own in distances.items():
        print(f"{name}: {fmean(own.values()):.2f} dB above the limit in the mean, {max(own.values()):.2f} at most")
    return distances


if __name__ == "__main__":
    main()
