"""What calibrated rounding saves at the same bytes: our encoders and llama.cpp's, with the same text to calibrate on.

    python benchmarks/quality.py [MODEL] [--calibrate-on prose.txt code.txt ...] [--preset Q4_0 Q4_K_M ...]

Without arguments: the model and the texts in the box, and the presets that the README claims something about.

For every preset, each tensor gets the format that the preset gives it, once from llama.cpp's encoder with an importance
matrix (mean squares of inputs over the calibration text), once from `encode_calibrated`. Both are judged by the KL
divergence from the original on the package's evaluation texts, of which nothing may be in the calibration text: per
domain, with a 95 % interval of the ratio from a bootstrap over windows, the same windows for both. The last line is
JSON.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from peers import llama_cpp

from thriftbit import open_model
from thriftbit.demo import DEMO_MODEL
from thriftbit.formats import FORMATS, format_named
from thriftbit.measurement.comparison import compare
from thriftbit.measurement.scores import Passage, Scores
from thriftbit.measurement.texts import DOMAINS, read_text, scored_positions, spread, windows
from thriftbit.network.configuration import configuration_of
from thriftbit.network.network import Network
from thriftbit.network.weights import Weights
from thriftbit.quantization.calibrated import encode_calibrated
from thriftbit.quantization.calibration import calibrate
from thriftbit.quantization.calibration_data import INDEX, Calibration, open_calibration
from thriftbit.quantization.calibration_text import calibration_windows
from thriftbit.quantization.presets import choose_formats, preset_named
from thriftbit.quantization.rounding import can_round
from thriftbit.runtime.tokenizer import Tokenizer
from thriftbit.sources.model import Model

CLAIMED = ["Q4_K_M", "Q3_K_M", "Q2_K", "Q4_0", "Q4_1", "IQ4_NL", "Q5_1"]
CONTEXT_TOKENS = 512
BOOTSTRAPS = 2000
Floats = NDArray[np.float32]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default=str(DEMO_MODEL))
    parser.add_argument("--calibrate-on", nargs="+", metavar="FILE")
    parser.add_argument("--calibration-windows", type=int, default=40, help="of 512 tokens, from all files together")
    parser.add_argument("--preset", nargs="+", default=CLAIMED)
    parser.add_argument("--windows", type=int, default=6, help="of 512 tokens to judge on, for each domain")
    parser.add_argument("--keep", type=Path, help="folder for the calibration; one that is there is used again")
    arguments = parser.parse_args()
    assert can_round(FORMATS["Q4_0"]), "the rounding kernels are not compiled; install the package again"
    torch.set_num_threads(1)
    model = open_model(arguments.model)
    with tempfile.TemporaryDirectory() as temporary, Tokenizer(model.metadata, model.source) as tokenizer:
        if arguments.calibrate_on:
            each = -(-arguments.calibration_windows // len(arguments.calibrate_on))
            text = np.concatenate([_windows(tokenizer, path, each) for path in arguments.calibrate_on])
        else:
            text = calibration_windows(model, None, arguments.calibration_windows)
        judged = {domain: _windows(tokenizer, domain, arguments.windows) for domain in DOMAINS}
        started = time.perf_counter()
        calibration = _calibration(model, text, arguments.keep or Path(temporary))
        print(f"calibrated in {time.perf_counter() - started:.0f} s on {calibration.tokens} tokens")
        rows = [_encode(model, calibration, preset) for preset in arguments.preset]
        results = _judge(model, rows, judged)
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps({"model": arguments.model, "tokens": calibration.tokens, "peak_mb": peak_mb, "presets": results}))


def _windows(tokenizer: Tokenizer, name_or_path: str, count: int) -> NDArray[np.int64]:
    """-> `count` windows, spread over the text"""
    tokens = tokenizer.tokenize([read_text(name_or_path).text], add_special=False)[0]
    cut = windows(tokens, CONTEXT_TOKENS, None)
    return cut[np.sort(spread(len(cut), count))]


def _calibration(model: Model, text: NDArray[np.int64], folder: Path) -> Calibration:
    mixed = text[np.random.default_rng(0).permutation(len(text))]  # so that every domain is held back in part
    return open_calibration(folder) if (folder / INDEX).exists() else calibrate(model, mixed, folder)


def _encode(model: Model, calibration: Calibration, preset: str) -> tuple[dict[str, Any], Weights, Weights]:
    """-> what is to be said of it, the model from llama.cpp's encoder, and from ours"""
    formats = choose_formats(model, preset_named(preset), importance=True)
    theirs, ours = dict[str, Floats](), dict[str, Floats]()
    seconds, notes = [0.0, 0.0], {}
    for tensor in model.tensors:
        format = format_named(formats[tensor.name])
        if format.block_size == 1:
            continue
        weights = tensor.load()
        known = tensor.name in calibration.names
        started = time.process_time()
        importance = calibration.importance(tensor.name) if known else None
        theirs[tensor.name] = format.decode(llama_cpp.encode(weights, format.ggml_type, importance))
        between = time.process_time()
        outcome = encode_calibrated(weights, format, calibration, tensor.name)
        ours[tensor.name] = format.decode(outcome.blocks)
        seconds[0] += between - started
        seconds[1] += time.process_time() - between
        if outcome.note:
            notes[tensor.name] = outcome.note
    facts = {"preset": preset, "cpu_seconds_theirs": seconds[0], "cpu_seconds_ours": seconds[1], "not_rounded": notes}
    return facts, _with(model, theirs), _with(model, ours)


def _with(model: Model, decoded: Mapping[str, Floats]) -> Weights:
    def reader(values: Floats) -> Any:
        return lambda start, stop: values[start:stop]

    tensors = tuple(
        replace(tensor, read=reader(decoded[tensor.name])) if tensor.name in decoded else tensor
        for tensor in model.tensors
    )
    return Weights(replace(model, tensors=tensors))


def _judge(
    model: Model,
    encoded: Sequence[tuple[dict[str, Any], Weights, Weights]],
    judged: Mapping[str, NDArray[np.int64]],
) -> list[dict[str, Any]]:
    network = Network(configuration_of(model), torch.device("cpu"))
    passages = [Passage(w.tolist(), scored_positions(CONTEXT_TOKENS)) for cut in judged.values() for w in cut]
    domains = np.array([domain for domain, cut in judged.items() for _ in cut])
    models = [Weights(model), *(weights for _, *pair in encoded for weights in pair)]
    scores = compare(network, models, passages)[1:]
    results = []
    for number, (facts, *_) in enumerate(encoded):
        theirs, ours = scores[2 * number], scores[2 * number + 1]
        result = facts | _compared(theirs, ours)
        result["domains"] = {}
        for domain in judged:
            chosen = np.flatnonzero(domains == domain)
            result["domains"][domain] = _compared([theirs[i] for i in chosen], [ours[i] for i in chosen])
        results.append(result)
        by_domain = ", ".join(f"{domain} {part['ratio']:.2f}" for domain, part in result["domains"].items())
        low, high = result["interval"]
        print(
            f"{result['preset']:8s} KL {result['theirs']['divergence']:.5f} → {result['ours']['divergence']:.5f}, "
            f"ratio {result['ratio']:.3f} [{low:.3f}, {high:.3f}]; {by_domain}; "
            f"same top token {result['theirs']['same_top']:.4f} → {result['ours']['same_top']:.4f}; "
            f"99.9 % {result['theirs']['divergence_999']:.3f} → {result['ours']['divergence_999']:.3f}"
        )
    return results


def _compared(theirs: Sequence[Scores], ours: Sequence[Scores]) -> dict[str, Any]:
    by_window = [np.array([score.divergence.mean() for score in scores]) for scores in (theirs, ours)]
    chosen = np.random.default_rng(0).integers(0, len(theirs), (BOOTSTRAPS, len(theirs)))
    ratios = by_window[1][chosen].mean(axis=1) / by_window[0][chosen].mean(axis=1)
    return {
        "ratio": float(by_window[1].mean() / by_window[0].mean()),
        "interval": [float(edge) for edge in np.quantile(ratios, [0.025, 0.975])],
        "theirs": _summary(theirs),
        "ours": _summary(ours),
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
