"""What calibrated and tuned rounding save at the same bytes, against llama.cpp's encoder with the same text.

    python benchmarks/quality.py [MODEL] [--calibrate-on prose.txt code.txt ...] [--preset Q4_0 Q4_K_M ...]
                                 [--effort calibrated tuned] [--calibration-windows 40]

Without arguments: the model and the texts in the box, the presets that the README claims something about, either
effort, on as much text as `thriftbit quantize` takes for it.

For every preset, each tensor gets the format that the preset gives it, once from llama.cpp's encoder with an importance
matrix (mean squares of inputs over the calibration text), once from `encode_calibrated` or `tune`. All are judged by
the KL divergence from the original on the package's evaluation texts, of which nothing may be in the calibration text:
per domain, with a 95 % interval of the ratio from a bootstrap over windows, the same windows for all. The last line is
JSON.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from peers import llama_cpp

from thriftbit import make_plan, open_model
from thriftbit.demo import DEMO_MODEL
from thriftbit.formats import FORMATS, format_named
from thriftbit.measurement.comparison import compare
from thriftbit.measurement.scores import Passage, Scores
from thriftbit.measurement.texts import DOMAINS, read_text, scored_positions, spread, windows
from thriftbit.network.configuration import configuration_of
from thriftbit.network.network import Network
from thriftbit.network.weights import Weights
from thriftbit.quantization import calibration_text, tuned
from thriftbit.quantization.calibrated import encode_calibrated
from thriftbit.quantization.calibration import calibrate
from thriftbit.quantization.calibration_data import INDEX, Calibration, open_calibration
from thriftbit.quantization.calibration_text import calibration_windows
from thriftbit.quantization.presets import choose_formats, preset_named
from thriftbit.quantization.rounding import can_round
from thriftbit.quantization.tuning import tune
from thriftbit.runtime.tokenizer import Tokenizer
from thriftbit.sources.model import Model

CLAIMED = ["Q4_K_M", "Q3_K_M", "Q2_K", "Q4_0", "Q4_1", "IQ4_NL", "Q5_1"]
WINDOWS = {"calibrated": calibration_text.WINDOWS, "tuned": tuned.WINDOWS}
CONTEXT_TOKENS = 512
BOOTSTRAPS = 2000
Floats = NDArray[np.float32]


@dataclass
class Encoded:
    """A model with a preset's formats. encoder: "llama.cpp" or an effort of ours. kept_plain: tensors -> why."""

    encoder: str
    weights: Weights
    cpu_seconds: float
    kept_plain: Mapping[str, str] = field(default_factory=dict)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default=str(DEMO_MODEL))
    parser.add_argument("--calibrate-on", nargs="+", metavar="FILE")
    parser.add_argument("--calibration-windows", type=int, help="of 512 tokens, from all files together")
    parser.add_argument("--preset", nargs="+", default=CLAIMED)
    parser.add_argument("--effort", nargs="+", choices=list(WINDOWS), default=list(WINDOWS))
    parser.add_argument("--windows", type=int, default=6, help="of 512 tokens to judge on, for each domain")
    parser.add_argument("--keep", type=Path, help="folder for calibrations; one that is there is used again")
    arguments = parser.parse_args()
    assert can_round(FORMATS["Q4_0"]), "the rounding kernels are not compiled; install the package again"
    torch.set_num_threads(1)
    model = open_model(arguments.model)
    results = []
    with tempfile.TemporaryDirectory() as temporary:
        with Tokenizer(model.metadata, model.source) as tokenizer:
            judged = {domain: _windows(tokenizer, domain, arguments.windows) for domain in DOMAINS}
            calibrations = {
                effort: _calibration(model, tokenizer, arguments, effort, arguments.keep or Path(temporary))
                for effort in arguments.effort
            }
        for preset in arguments.preset:
            encoded = [_theirs(model, calibrations[arguments.effort[-1]], preset)]
            for effort, calibration in calibrations.items():
                encoded.append(_ours(model, calibration, preset, effort, Path(temporary) / preset))
            results.append({"preset": preset, "encoders": _judge(model, preset, encoded, judged)})
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    tokens = {effort: calibration.tokens for effort, calibration in calibrations.items()}
    print(json.dumps({"model": arguments.model, "tokens": tokens, "peak_mb": peak_mb, "presets": results}))


def _windows(tokenizer: Tokenizer, name_or_path: str, count: int) -> NDArray[np.int64]:
    """-> `count` windows, spread over the text"""
    tokens = tokenizer.tokenize([read_text(name_or_path).text], add_special=False)[0]
    cut = windows(tokens, CONTEXT_TOKENS, None)
    return cut[np.sort(spread(len(cut), count))]


def _calibration(
    model: Model, tokenizer: Tokenizer, arguments: argparse.Namespace, effort: str, folder: Path
) -> Calibration:
    count = arguments.calibration_windows or WINDOWS[effort]
    folder /= str(count)
    if (folder / INDEX).exists():
        return open_calibration(folder)
    if arguments.calibrate_on:
        each = -(-count // len(arguments.calibrate_on))
        text = np.concatenate([_windows(tokenizer, path, each) for path in arguments.calibrate_on])
    else:
        text = calibration_windows(model, None, count)
    started = time.process_time()
    calibration = calibrate(model, text, folder)
    print(f"calibrated on {calibration.tokens} tokens in {time.process_time() - started:.0f} s of processor time")
    return calibration


def _theirs(model: Model, calibration: Calibration, preset: str) -> Encoded:
    formats, decoded = choose_formats(model, preset_named(preset), importance=True), dict[str, Floats]()
    started = time.process_time()
    for tensor in model.tensors:
        format = format_named(formats[tensor.name])
        if format.block_size > 1:
            importance = calibration.importance(tensor.name) if tensor.name in calibration.names else None
            decoded[tensor.name] = format.decode(llama_cpp.encode(tensor.load(), format.ggml_type, importance))
    return Encoded("llama.cpp", _with(model, decoded), time.process_time() - started)


def _ours(model: Model, calibration: Calibration, preset: str, effort: str, folder: Path) -> Encoded:
    plan = make_plan(model, preset, importance=True)
    started, decoded, kept = time.process_time(), dict[str, Floats](), dict[str, str]()
    rounded = tune(model, plan, calibration, folder) if effort == "tuned" else None
    for tensor in model.tensors:
        format = format_named(plan.formats[tensor.name])
        if format.block_size == 1:
            continue
        if rounded is not None and tensor.name in rounded:
            blocks, note = rounded.blocks(tensor.name), rounded.note(tensor.name)
        else:
            outcome = encode_calibrated(tensor.load(), format, calibration, tensor.name)
            blocks, note = outcome.blocks, outcome.note
        decoded[tensor.name] = format.decode(blocks)
        if note:
            kept[tensor.name] = note
    return Encoded(effort, _with(model, decoded), time.process_time() - started, kept)


def _with(model: Model, decoded: Mapping[str, Floats]) -> Weights:
    def reader(values: Floats) -> Any:
        return lambda start, stop: values[start:stop]

    tensors = tuple(
        replace(tensor, read=reader(decoded[tensor.name])) if tensor.name in decoded else tensor
        for tensor in model.tensors
    )
    return Weights(replace(model, tensors=tensors))


def _judge(
    model: Model, preset: str, encoded: Sequence[Encoded], judged: Mapping[str, NDArray[np.int64]]
) -> list[dict[str, Any]]:
    network = Network(configuration_of(model), torch.device("cpu"))
    passages = [Passage(w.tolist(), scored_positions(CONTEXT_TOKENS)) for cut in judged.values() for w in cut]
    domains = np.array([domain for domain, cut in judged.items() for _ in cut])
    theirs, *scores = compare(network, [Weights(model), *(each.weights for each in encoded)], passages)[1:]
    results = [{"encoder": encoded[0].encoder, "cpu_seconds": encoded[0].cpu_seconds} | _summary(theirs)]
    for each, ours in zip(encoded[1:], scores, strict=True):
        result: dict[str, Any] = {"encoder": each.encoder, "cpu_seconds": each.cpu_seconds}
        result |= _summary(ours) | _compared(theirs, ours) | {"kept_plain": dict(each.kept_plain), "domains": {}}
        for domain in judged:
            chosen = np.flatnonzero(domains == domain)
            pair = [[part[i] for i in chosen] for part in (theirs, ours)]
            result["domains"][domain] = _summary(pair[1]) | _compared(*pair)
        results.append(result)
        _print(preset, results[0], result)
    return results


def _print(preset: str, theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
    by_domain = ", ".join(f"{domain} {part['ratio']:.2f}" for domain, part in ours["domains"].items())
    print(
        f"{preset:8s} {ours['encoder']:10s} KL {theirs['divergence']:.5f} → {ours['divergence']:.5f}, "
        f"ratio {ours['ratio']:.3f} [{ours['interval'][0]:.3f}, {ours['interval'][1]:.3f}]; {by_domain}; "
        f"same top token {theirs['same_top']:.4f} → {ours['same_top']:.4f}; "
        f"99.9 % {theirs['divergence_999']:.3f} → {ours['divergence_999']:.3f}; "
        f"{len(ours['kept_plain'])} kept plain; {ours['cpu_seconds']:.0f} s of processor time",
        flush=True,
    )


def _compared(theirs: Sequence[Scores], ours: Sequence[Scores]) -> dict[str, Any]:
    by_window = [np.array([score.divergence.mean() for score in scores]) for scores in (theirs, ours)]
    chosen = np.random.default_rng(0).integers(0, len(theirs), (BOOTSTRAPS, len(theirs)))
    ratios = by_window[1][chosen].mean(axis=1) / by_window[0][chosen].mean(axis=1)
    return {
        "ratio": float(by_window[1].mean() / by_window[0].mean()),
        "interval": [float(edge) for edge in np.quantile(ratios, [0.025, 0.975])],
    }


def _summary(scores: Sequence[Scores]) -> dict[str, float]:
    divergence = np.concatenate([score.divergence for score in scores])
    return {
        "divergence": float(divergence.mean()),
        "divergence_999": float(np.quantile(divergence, 0.999)),
        "same_top": float(np.mean(np.concatenate([score.same_top for score in scores]))),
    }


if __name__ == "__main__":
    main()
