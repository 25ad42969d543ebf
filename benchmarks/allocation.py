"""What a plan of one's own saves at the same file size, and how far predictions are from measurements.

    python benchmarks/allocation.py [MODEL] [--preset Q4_K_M Q3_K_M ...] [--effort plain calibrated tuned]
                                    [--random 12] [--windows 6] [--keep FOLDER]

For every preset: llama.cpp's encoder with an importance matrix at the preset's type map; ours at the same type map with
every effort (plain: importance, block by block); and the best plan for a file of the preset's size, with every effort.
All are judged by the KL divergence from the original on the package's evaluation texts, of which nothing was calibrated
on, with 95% intervals of ratios from a bootstrap over windows, the same windows for all. Then plans at random, plain:
with the files above they say how good the map's predictions are; what is tuned the map takes for calibrated. The last
line is JSON.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peers.encoders import CALIBRATED, LLAMA_CPP, PLAIN, TUNED, Encoded, encoded
from peers.judging import Judge, Verdict, describe

from thriftbit import Model, Plan, calibrate, make_plan, open_model
from thriftbit.demo import DEMO_MODEL
from thriftbit.quantization import calibration_text, tuned
from thriftbit.quantization.allocation import Budget, find_plan
from thriftbit.quantization.gguf_file import file_layout
from thriftbit.quantization.model_map import map_model
from thriftbit.quantization.sensitivity import Sensitivities, offered_formats
from thriftbit.runtime.tokenizer import Tokenizer

WINDOWS = {PLAIN: calibration_text.WINDOWS, CALIBRATED: calibration_text.WINDOWS, TUNED: tuned.WINDOWS}
TYPE_MAP, OWN_PLAN = "type map", "our plan"


@dataclass(frozen=True)
class File:
    """What would be in a file. of: the preset whose type map or size it has, "" for plans at random. encoder: as
    peers/encoders.py has it. predicted: KL divergence; None for what the map does not know."""

    of: str
    name: str
    plan: Plan
    encoder: str
    size_bytes: int
    predicted: float | None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default=str(DEMO_MODEL))
    parser.add_argument("--preset", nargs="*", default=["Q4_K_M", "Q3_K_M", "Q4_0"])
    parser.add_argument("--effort", nargs="+", choices=list(WINDOWS), default=[PLAIN, CALIBRATED])
    parser.add_argument("--random", type=int, default=12, help="plans at random")
    parser.add_argument("--windows", type=int, default=6, help="of 512 tokens to judge on, for each domain")
    parser.add_argument("--keep", type=Path, help="folder for all that is made; what is there is used again")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model = open_model(arguments.model)
    started = time.perf_counter()
    known = map_model(model, CALIBRATED)
    print(f"the map took {time.perf_counter() - started:.0f} s", flush=True)
    random = np.random.default_rng(0)
    together = [list(_files(model, known, preset, arguments.effort)) for preset in arguments.preset]
    together += [[_at_random(model, known, random, number)] for number in range(arguments.random)]
    judged = list[tuple[File, Verdict]]()
    with tempfile.TemporaryDirectory() as temporary:
        for found in _judge(arguments, model, together, arguments.keep or Path(temporary)):
            judged += found
    results = [
        _compared([(file, verdict) for file, verdict in judged if file.of == preset]) for preset in arguments.preset
    ]
    print(json.dumps({"model": arguments.model, "presets": results, "predictions": _errors(judged)}))


def _files(model: Model, known: Sensitivities, preset: str, efforts: Sequence[str]) -> Iterator[File]:
    plan = make_plan(model, preset, importance=True)
    size_bytes = file_layout(model, plan).file_size_bytes
    yield File(preset, TYPE_MAP, plan, LLAMA_CPP, size_bytes, None)
    for effort in efforts:
        mapped = PLAIN if effort == PLAIN else CALIBRATED
        yield File(preset, TYPE_MAP, plan, effort, size_bytes, known.predict(plan.formats, mapped).value)
        own = find_plan(model, known, Budget(size_bytes=size_bytes), mapped)
        yield File(preset, OWN_PLAN, own.plan, effort, own.size_bytes, own.loss.value)


def _at_random(model: Model, known: Sensitivities, random: np.random.Generator, number: int) -> File:
    """Return a plan in which every tensor has a format drawn from a range of sizes that is drawn first."""
    fewest = random.uniform(2, 6)
    most = fewest + random.uniform(1, 4)
    formats = dict(make_plan(model, "Q8_0").formats)
    for tensor in model.tensors:
        if offered := [f for f in offered_formats(tensor) if f.name in known.losses[tensor.name]]:
            drawn = [f.name for f in offered if fewest <= f.bits_per_weight <= most]
            formats[tensor.name] = str(random.choice(drawn)) if drawn else offered[0].name
    plan = Plan(formats, "custom", "at random")
    size_bytes = file_layout(model, plan).file_size_bytes
    return File("", f"at random {number}", plan, PLAIN, size_bytes, known.predict(formats, PLAIN).value)


def _judge(
    arguments: argparse.Namespace, model: Model, together: Sequence[Sequence[File]], folder: Path
) -> Iterator[list[tuple[File, Verdict]]]:
    with Tokenizer(model.metadata, model.source) as tokenizer:
        judge = Judge(model, tokenizer, arguments.windows)
    calibrations = {count: calibrate(model, windows=count).folder for count in set(WINDOWS.values())}

    def blocks(file: File) -> Encoded:
        calibration = calibrations[WINDOWS.get(file.encoder, max(map(WINDOWS.__getitem__, arguments.effort)))]
        return encoded(arguments.model, file.plan, file.encoder, calibration, folder / file.of / file.name)

    for files in together:
        verdicts = judge.judge([blocks(file).weights(model) for file in files])
        for file, verdict in zip(files, verdicts, strict=True):
            predicted = f"predicted {file.predicted:.5f}, " if file.predicted else ""
            measured = f"{predicted}KL {verdict.summary['divergence']:.5f}"
            print(
                f"{file.of:8s} {file.name:12s} {file.encoder:10s} {file.size_bytes / 1e6:8.2f} MB  {measured}",
                flush=True,
            )
        yield list(zip(files, verdicts, strict=True))


def _compared(files: Sequence[tuple[File, Verdict]]) -> dict[str, Any]:
    """Return each file of a preset's size, as a ratio to llama.cpp's, which is the first."""
    file, theirs = files[0]
    result: dict[str, Any] = {"preset": file.of, "size_bytes": file.size_bytes, LLAMA_CPP: theirs.summary}
    for file, verdict in files[1:]:
        label = f"{file.name}, {file.encoder}"
        result[label] = verdict.summary | verdict.against(theirs)
        print(f"{file.of:8s} {label:22s} {describe(theirs, verdict)}", flush=True)
    return result


def _errors(judged: Sequence[tuple[File, Verdict]]) -> Mapping[str, Any]:
    """Return the mean and the scatter of log(measured ÷ predicted) for each effort."""
    found = {}
    for effort in (PLAIN, CALIBRATED, TUNED):
        logarithms = [
            float(np.log(verdict.summary["divergence"] / file.predicted))
            for file, verdict in judged
            if file.encoder == effort and file.predicted
        ]
        if logarithms:
            found[effort] = {
                "files": len(logarithms),
                "measured_over_predicted": float(np.exp(np.mean(logarithms))),
                "scatter": float(np.std(logarithms)),
                "worst": float(np.max(np.abs(logarithms))),
            }
            print(f"{effort}: {found[effort]}")
    return found


if __name__ == "__main__":
    main()
