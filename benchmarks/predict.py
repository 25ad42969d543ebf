"""Are predictions true? Sizes, memory and speeds that were predicted, against what real files take and do here.

    python benchmarks/predict.py [MODEL ...] [--presets BF16,Q8_0,...] [--contexts 1024,4096] [--threads 1]
                                 [--folder FOLDER] [--rounds 3] [--measure] [--learn]

MODEL: folders; the model in the box by default. Each is quantized to each preset into FOLDER (and kept there, where one
is given), and run by llama.cpp at each context with each number of threads. --measure measures this computer anew
before every round, as `thriftbit doctor --measure` does but for these formats alone: on a machine that others use too,
its state changes within minutes, and this separates that from the errors of the arithmetic. Without it, the stored
profile is taken. --learn keeps what was found, so that later predictions are better.

Side by side with what llmfit and gguf-parser say by their formulas (peers/advisers.py). Two errors of our speeds are
given: as predicted from the profile alone, and "learned": corrected by what runs of the *other* files showed. Speeds
are medians of rounds in which the cases take turns. Bars: sizes exact, memory within 5%, speed within 15% in the
median and nine of ten in the interval. One JSON line last.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median

from peers.advisers import (
    gguf_parser_memory_bytes,
    gguf_parser_tokens_per_second,
    llmfit_file_bytes,
    llmfit_memory_bytes,
    llmfit_tokens_per_second,
)

from thriftbit import Engine, make_plan, open_model, quantize
from thriftbit.demo import DEMO_MODEL
from thriftbit.machine.corrections import Run, correction_from, record
from thriftbit.machine.memory_needed import memory_needed
from thriftbit.machine.model_shape import ModelShape, shape_of
from thriftbit.machine.predict import decode_rate
from thriftbit.machine.prediction import Prediction
from thriftbit.machine.profile import Profile, read_profile
from thriftbit.quantization.gguf_file import file_layout
from thriftbit.runtime.examine import examine
from thriftbit.runtime.probe import measure_machine
from thriftbit.sources.remote import open_outline

PRESETS = "BF16,Q8_0,Q6_K,Q4_K_M,Q4_0,Q2_K"
PROFILE_SECONDS = 40.0
BATCH_TOKENS, FILLED_SHARE = 512, 8  # of the context, an eighth is text when the writing begins
ANSWERS = 5
MEMORY_BAR, SPEED_BAR, COVERED_BAR = 0.05, 0.15, 0.9


@dataclass
class Case:
    """One file at one context with one number of threads: predicted, then measured."""

    model: str
    preset: str
    context_tokens: int
    threads: int
    path: Path
    shape: ModelShape
    size: int
    memory: Prediction
    measured_memory: int = 0
    rounds: list[tuple[Prediction, float]] = field(default_factory=list)

    @property
    def name(self) -> str:
        folder = Path(self.model).resolve()
        return f"{folder.parent.name}/{folder.name}"

    @property
    def predicted(self) -> float:
        return median(prediction.value or 0.0 for prediction, _ in self.rounds)

    @property
    def measured(self) -> float:
        return median(rate for _, rate in self.rounds)

    @property
    def interval(self) -> tuple[float, float]:
        return median(p.low or 0.0 for p, _ in self.rounds), median(p.high or 0.0 for p, _ in self.rounds)

    @property
    def actual_size(self) -> int:
        return self.path.stat().st_size

    def run(self) -> Run:
        return Run("decode_rate", self.predicted, self.measured, "", self.model, self.preset, self.threads)


def prepare(models: Sequence[str], presets: Sequence[str], folder: Path, arguments: argparse.Namespace) -> list[Case]:
    """Predicts first, from the description alone; then makes the files."""
    cases = []
    for source in models:
        outline = open_outline(source)
        for preset in presets:
            plan = make_plan(outline.model, preset)
            size = file_layout(outline.model, plan).file_size_bytes
            shape = shape_of(outline.model.architecture, outline.model.metadata, plan.entries(outline.model))
            path = folder / f"{Path(source).resolve().parent.name}-{Path(source).name}-{preset}.gguf"
            if not path.exists():
                model = open_model(source)
                quantize(model, make_plan(model, preset), path, threads=1)
            for context in arguments.contexts:
                if context > shape.context_tokens:
                    continue
                needed = memory_needed(shape, context, instruction_sets=arguments.instruction_sets)
                cases += [
                    Case(source, preset, context, threads, path, shape, size, needed.resident)
                    for threads in arguments.threads
                ]
    return cases


def measure(case: Case, profile: Profile, first: bool, tokens: int) -> None:
    """Writes after an eighth of the context, several times, of which the median counts: the first answers after loading
    are slower, and any is where another program, or another guest of a virtual machine, is at work. Before that, once,
    reads a whole batch, so that all room is used."""
    batch = [(100 + number % 1000) % case.shape.tokens for number in range(BATCH_TOKENS)]
    text = batch[: case.context_tokens // FILLED_SHARE]
    with Engine(case.path, context_tokens=case.context_tokens, threads=case.threads) as engine:
        if first:
            engine.generate(batch, max_tokens=2, temperature=0, ignore_end=True)
        engine.generate(text, max_tokens=tokens, temperature=0, ignore_end=True)
        answers = [engine.generate(text, max_tokens=tokens, temperature=0, ignore_end=True) for _ in range(ANSWERS)]
        if first:
            case.measured_memory = engine.memory().peak_bytes
    filled = len(text) + tokens // 2
    predicted = decode_rate(case.shape, profile, filled_tokens=filled, threads=case.threads)
    case.rounds.append((predicted, median(answer.tokens_per_second for answer in answers)))


def learned(case: Case, cases: Sequence[Case], profile: Profile) -> Prediction:
    """Return the prediction as it is after runs of other files, this one's left out."""
    correction = correction_from([other.run() for other in cases if other.path != case.path])
    filled = case.context_tokens // FILLED_SHARE
    plain = decode_rate(case.shape, profile, filled_tokens=filled, threads=case.threads)
    fresh = decode_rate(case.shape, profile, filled_tokens=filled, threads=case.threads, correction=correction)
    scale = case.predicted / (plain.value or 1.0)
    return fresh.scaled(scale)


def outcome(case: Case, cases: Sequence[Case], profile: Profile) -> dict[str, float]:
    """Return errors, as shares of what was measured, of us and of the others."""
    bandwidth = max((each.bytes_per_second.median for each in profile.bandwidth), default=1e10)
    operations = 2 * max(rate.prefill_weights_per_second.median for rate in profile.rates)
    parameters, context, after = case.shape.parameters, case.context_tokens, learned(case, cases, profile)
    low, high = case.interval
    memory, speed = case.measured_memory, case.measured
    return {
        "memory": (case.memory.value or 0) / memory - 1,
        "speed": case.predicted / speed - 1,
        "inside": low <= speed <= high,
        "learned": (after.value or 0) / speed - 1,
        "inside learned": (after.low or 0) <= speed <= (after.high or 0),
        "llmfit size": llmfit_file_bytes(parameters, case.preset) / case.actual_size - 1,
        "llmfit memory": llmfit_memory_bytes(parameters, case.preset, case.shape, context) / memory - 1,
        "llmfit speed": llmfit_tokens_per_second(parameters, case.preset) / speed - 1,
        "gguf-parser memory": gguf_parser_memory_bytes(case.shape, case.size, context) / memory - 1,
        "gguf-parser speed": gguf_parser_tokens_per_second(case.shape, context, operations, bandwidth) / speed - 1,
    }


def report(cases: Sequence[Case], profile: Profile) -> dict[str, object]:
    """Prints a table. Returns the summary."""
    print("| model | preset | context | threads | size | memory | error | tokens/s | error | interval |", end="")
    print(" learned | llmfit: memory | speed | gguf-parser: memory | speed |\n|" + " --- |" * 15)
    outcomes = [outcome(case, cases, profile) for case in cases]
    for case, found in zip(cases, outcomes, strict=True):
        exact = "exact" if case.size == case.actual_size else f"{case.size - case.actual_size:+,} bytes"
        low, high = case.interval
        cells = [
            *(case.name, case.preset, case.context_tokens, case.threads, exact),
            *(f"{case.measured_memory / 1e6:.0f} MB", f"{found['memory']:+.1%}"),
            *(f"{case.measured:.1f}", f"{found['speed']:+.0%}", f"{low:.1f}–{high:.1f}", f"{found['learned']:+.0%}"),
            *(f"{found['llmfit memory']:+.0%}", f"{found['llmfit speed']:+.0%}"),
            *(f"{found['gguf-parser memory']:+.0%}", f"{found['gguf-parser speed']:+.0%}"),
        ]
        print("| " + " | ".join(map(str, cells)) + " |")

    def middle(name: str) -> float:
        return round(median(abs(found[name]) for found in outcomes), 4)

    def share(name: str) -> float:
        return round(sum(found[name] for found in outcomes) / len(outcomes), 3)

    document: dict[str, object] = {
        "cases": len(cases),
        "sizes_exact": sum(case.size == case.actual_size for case in cases),
        "memory_worst_error": round(max(abs(found["memory"]) for found in outcomes), 4),
        "memory_median_error": middle("memory"),
        "speed_median_error": middle("speed"),
        "speed_inside": share("inside"),
        "learned_median_error": middle("learned"),
        "learned_inside": share("inside learned"),
        "peers_median_error": {name: middle(name) for name in outcomes[0] if name.startswith(("llmfit", "gguf"))},
    }
    document["bars_met"] = {
        "sizes": document["sizes_exact"] == len(cases),
        "memory": document["memory_worst_error"] <= MEMORY_BAR,
        "speed": middle("speed") <= SPEED_BAR and share("inside") >= COVERED_BAR,
        "speed learned": middle("learned") <= SPEED_BAR and share("inside learned") >= COVERED_BAR,
    }
    return document


def measured_now(cases: Sequence[Case], folder: Path) -> Profile:
    """Return a profile of this moment; the user's own stays as it is."""
    formats = {name for case in cases for name in case.shape.bytes_per_token()} - {"F32"}
    kept = os.environ.get("THRIFTBIT_CACHE")
    os.environ["THRIFTBIT_CACHE"] = str(folder / "profile")
    try:
        return measure_machine(budget_seconds=PROFILE_SECONDS, formats=sorted(formats))
    finally:
        os.environ.pop("THRIFTBIT_CACHE")
        if kept is not None:
            os.environ["THRIFTBIT_CACHE"] = kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=[str(DEMO_MODEL)])
    parser.add_argument("--presets", default=PRESETS)
    parser.add_argument("--contexts", default="1024,4096")
    parser.add_argument("--threads", default="1")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=24, help="that each case writes in a round")
    parser.add_argument("--measure", action="store_true")
    parser.add_argument("--learn", action="store_true")
    arguments = parser.parse_args()
    arguments.contexts = [int(each) for each in arguments.contexts.split(",")]
    arguments.threads = [int(each) for each in arguments.threads.split(",")]
    profile = read_profile()
    if profile is None and not arguments.measure:
        sys.exit("this computer was not measured: thriftbit doctor --measure, or --measure here")
    arguments.instruction_sets = examine().processor.instruction_sets.value or ()
    with tempfile.TemporaryDirectory() as temporary:
        cases = prepare(arguments.models, arguments.presets.split(","), arguments.folder or Path(temporary), arguments)
        for number in range(arguments.rounds):
            if arguments.measure:
                profile = measured_now(cases, Path(temporary))
            assert profile is not None
            for case in cases if number % 2 == 0 else reversed(cases):
                print(f"round {number + 1}: {case.path.name}, context {case.context_tokens}", file=sys.stderr)
                measure(case, profile, number == 0, arguments.tokens)
        document = report(cases, profile)
    stored = read_profile()
    if arguments.learn and stored and stored.measured_at:
        record([replace(case.run(), measured_at=stored.measured_at) for case in cases])
    print(json.dumps({"benchmark": "predict", **document}))


if __name__ == "__main__":
    main()
