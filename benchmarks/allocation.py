"""What a plan of one's own saves at the same file size, and how far predictions are from measurements.

    python benchmarks/allocation.py [MODEL] [--preset Q4_K_M Q3_K_M ...] [--random 12] [--windows 6]

For every preset: llama.cpp's encoder with an importance matrix at the preset's type map; ours at the same type map,
plain (importance, block by block) and calibrated; and the best plan for a file of the preset's size, plain and
calibrated. All are judged by the KL divergence from the original on the package's evaluation texts, of which nothing
was calibrated on, with 95 % intervals of ratios from a bootstrap over windows, the same windows for all. Then plans at
random, plain: with the files above they say how good the map's predictions are. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from peers import llama_cpp

from thriftbit import Model, Plan, Tensor, make_plan, open_model
from thriftbit.demo import DEMO_MODEL
from thriftbit.formats import format_named
from thriftbit.measurement.comparison import compare
from thriftbit.measurement.scores import Passage, Scores
from thriftbit.measurement.texts import DOMAINS, read_text, scored_positions, spread, windows
from thriftbit.network.configuration import configuration_of
from thriftbit.network.network import Network
from thriftbit.network.weights import Weights
from thriftbit.quantization.allocation import Budget, find_plan
from thriftbit.quantization.calibrated import encode_calibrated
from thriftbit.quantization.calibration_data import Calibration
from thriftbit.quantization.calibration_text import calibration_of
from thriftbit.quantization.metadata import file_layout
from thriftbit.quantization.model_map import map_model
from thriftbit.quantization.sensitivity import CALIBRATED, PLAIN, Sensitivities, offered_formats
from thriftbit.runtime.tokenizer import Tokenizer

CONTEXT_TOKENS = 512
BOOTSTRAPS = 2000
LLAMA_CPP = "llama.cpp"
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class File:
    """What would be in a file. effort: LLAMA_CPP, PLAIN or CALIBRATED. predicted: KL divergence; None for what the map
    does not know. of_windows: mean KL divergence in each window that it was judged on."""

    name: str
    plan: Plan
    effort: str
    size_bytes: int
    predicted: float | None
    of_windows: NDArray[np.float64] | None = None
    scores: Sequence[Scores] = ()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default=str(DEMO_MODEL))
    parser.add_argument("--preset", nargs="*", default=["Q4_K_M", "Q3_K_M", "Q4_0"])
    parser.add_argument("--random", type=int, default=12, help="plans at random")
    parser.add_argument("--windows", type=int, default=6, help="of 512 tokens to judge on, for each domain")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model = open_model(arguments.model)
    started = time.perf_counter()
    known = map_model(model, CALIBRATED)
    print(f"the map took {time.perf_counter() - started:.0f} s")
    calibration = calibration_of(model)
    random = np.random.default_rng(0)
    together = [_files(model, known, preset) for preset in arguments.preset]
    together += [[_at_random(model, known, random, number)] for number in range(arguments.random)]
    judge = _Judge(model, arguments.windows)
    judged = [file for files in together for file in judge.judge(files, calibration)]
    results = [_compared(judged, preset) for preset in arguments.preset]
    errors = _errors([file for file in judged if file.predicted])
    print(json.dumps({"model": arguments.model, "presets": results, "predictions": errors}))


def _files(model: Model, known: Sensitivities, preset: str) -> list[File]:
    plan = make_plan(model, preset, importance=True)
    size_bytes = file_layout(model, plan).file_size_bytes
    files = [File(preset, plan, LLAMA_CPP, size_bytes, None)]
    for effort in (PLAIN, CALIBRATED):
        files.append(File(preset, plan, effort, size_bytes, known.predict(plan.formats, effort).value))
        own = find_plan(model, known, Budget(size_bytes=size_bytes), effort)
        files.append(File(f"our plan of {preset}'s size", own.plan, effort, own.size_bytes, own.loss.value))
    return files


def _at_random(model: Model, known: Sensitivities, random: np.random.Generator, number: int) -> File:
    """-> a plan in which every tensor has a format drawn from a range of sizes that is drawn first"""
    fewest = random.uniform(2, 6)
    most = fewest + random.uniform(1, 4)
    formats = dict(make_plan(model, "Q8_0").formats)
    for tensor in model.tensors:
        if offered := [f for f in offered_formats(tensor) if f.name in known.losses[tensor.name]]:
            drawn = [f.name for f in offered if fewest <= f.bits_per_weight <= most]
            formats[tensor.name] = str(random.choice(drawn)) if drawn else offered[0].name
    plan = Plan(formats, "custom", "at random")
    size_bytes = file_layout(model, plan).file_size_bytes
    return File(f"at random {number}", plan, PLAIN, size_bytes, known.predict(formats, PLAIN).value)


def _weights(model: Model, file: File, calibration: Calibration) -> Weights:
    def encoded(tensor: Tensor) -> Tensor:
        format = format_named(file.plan.formats[tensor.name])
        if format.block_size == 1:
            return tensor
        rows = tensor.load()
        importance = calibration.importance(tensor.name) if tensor.name in calibration.names else None
        if file.effort == LLAMA_CPP:
            blocks = llama_cpp.encode(rows, format.ggml_type, importance)
        elif file.effort == PLAIN:
            blocks = format.encode(rows, importance)
        else:
            blocks = encode_calibrated(rows, format, calibration, tensor.name).blocks
        decoded = format.decode(blocks)
        return replace(tensor, read=lambda start, stop: decoded[start:stop])

    return Weights(replace(model, tensors=tuple(encoded(tensor) for tensor in model.tensors)))


class _Judge:
    def __init__(self, model: Model, count: int) -> None:
        self._model = model
        self._network = Network(configuration_of(model), torch.device("cpu"))
        self._original = Weights(model)
        self._passages = []
        with Tokenizer(model.metadata, model.source) as tokenizer:
            for domain in DOMAINS:
                cut = windows(tokenizer.tokenize([read_text(domain).text], add_special=False)[0], CONTEXT_TOKENS, None)
                chosen = cut[np.sort(spread(len(cut), count))]
                self._passages += [Passage(w.tolist(), scored_positions(CONTEXT_TOKENS)) for w in chosen]

    def judge(self, files: Sequence[File], calibration: Calibration) -> list[File]:
        """-> the files with how they were judged. All of them are in memory at once."""
        weights = [_weights(self._model, file, calibration) for file in files]
        found = compare(self._network, [self._original, *weights], self._passages)[1:]
        judged = [
            replace(file, of_windows=np.array([score.divergence.mean() for score in scores]), scores=scores)
            for file, scores in zip(files, found, strict=True)
        ]
        for file in judged:
            _tell(file)
        return judged


def _tell(file: File) -> None:
    assert file.of_windows is not None
    measured = file.of_windows.mean()
    predicted = f"predicted {file.predicted:.5f}, " if file.predicted else ""
    domains = ", ".join(
        f"{domain} {part.mean():.5f}"
        for domain, part in zip(DOMAINS, np.split(file.of_windows, len(DOMAINS)), strict=True)
    )
    print(
        f"{file.name:28s} {file.effort:10s} {file.size_bytes / 1e6:8.2f} MB  {predicted}KL {measured:.5f}; {domains}",
        flush=True,
    )


def _compared(files: Sequence[File], preset: str) -> dict[str, Any]:
    """-> each file of the preset's size, as a ratio to llama.cpp's"""
    own = [file for file in files if preset in (file.name, file.name[len("our plan of ") : -len("'s size")])]
    theirs = next(file for file in own if file.effort == LLAMA_CPP)
    assert theirs.of_windows is not None
    result: dict[str, Any] = {"preset": preset, "size_bytes": theirs.size_bytes, "llama.cpp": _summary(theirs)}
    chosen = np.random.default_rng(0).integers(0, len(theirs.of_windows), (BOOTSTRAPS, len(theirs.of_windows)))
    for file in own:
        if file is theirs:
            continue
        assert file.of_windows is not None
        ratios = file.of_windows[chosen].mean(axis=1) / theirs.of_windows[chosen].mean(axis=1)
        low, high = np.quantile(ratios, [0.025, 0.975])
        ratio = float(file.of_windows.mean() / theirs.of_windows.mean())
        parts = zip(*(np.split(each, len(DOMAINS)) for each in (file.of_windows, theirs.of_windows)), strict=True)
        domains = {name: float(a.mean() / b.mean()) for name, (a, b) in zip(DOMAINS, parts, strict=True)}
        label = f"{'type map' if file.name == preset else 'our plan'}, {file.effort}"
        result[label] = {"ratio": ratio, "interval": [float(low), float(high)], "domains": domains} | _summary(file)
        by_domain = ", ".join(f"{name} {value:.2f}" for name, value in domains.items())
        print(
            f"{preset:8s} {label:22s} ÷ llama.cpp: {ratio:.3f} [{low:.3f}, {high:.3f}]; {by_domain}; "
            f"same top token {_summary(theirs)['same_top']:.4f} → {_summary(file)['same_top']:.4f}; "
            f"99.9 % {_summary(theirs)['divergence_999']:.3f} → {_summary(file)['divergence_999']:.3f}"
        )
    return result


def _summary(file: File) -> dict[str, float]:
    divergence = np.concatenate([score.divergence for score in file.scores])
    return {
        "divergence": float(divergence.mean()),
        "divergence_999": float(np.quantile(divergence, 0.999)),
        "same_top": float(np.mean(np.concatenate([score.same_top for score in file.scores]))),
    }


def _errors(files: Sequence[File]) -> Mapping[str, Any]:
    """-> of log(measured ÷ predicted): mean and scatter, for plain and for calibrated files"""
    found = {}
    for effort in (PLAIN, CALIBRATED):
        logarithms = [
            float(np.log(file.of_windows.mean() / file.predicted))
            for file in files
            if file.effort == effort and file.predicted and file.of_windows is not None
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
