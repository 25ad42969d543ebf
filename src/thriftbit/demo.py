"""The whole story on a small model: every level's size, what it lost and gained, and what it writes.

The model in `demo_model/` ships with the package, so that this works offline, in seconds, and gives the same sizes on
every machine: the README's table is made here and held to it by a test. Seven levels, from what people download today
to what is too small to recommend, say more than all of llama.cpp's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from thriftbit.measurement.measure import MeasureSettings, measure
from thriftbit.measurement.measurement import Measurement
from thriftbit.progress import Progress
from thriftbit.quantization.plan import make_plan
from thriftbit.quantization.presets import PRESETS
from thriftbit.quantization.quantize import quantize
from thriftbit.runtime.chat_template import NOT_CHATTING
from thriftbit.runtime.engine import Engine
from thriftbit.runtime.generation import Generation
from thriftbit.sizes import describe_bytes
from thriftbit.sources.model import Model
from thriftbit.sources.open_model import open_model

DEMO_MODEL = Path(__file__).with_name("demo_model")
LEVELS = ("F16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q3_K_M", "Q2_K")
WRITER = "Q4_K_M"
PROMPTS = ("The city was founded in", "The first computer was", "In the year 1914, the")
MAX_TOKENS = 80
MEASURED = MeasureSettings(budget_seconds=90, prompts=PROMPTS)


@dataclass(frozen=True)
class Level:
    """One quantized version. share: of the original's size. seconds: to make it."""

    preset: str
    path: Path
    size_bytes: int
    share: float
    bits_per_weight: float
    seconds: float


def open_demo_model() -> Model:
    return open_model(DEMO_MODEL, offline=True)


def quantize_levels(model: Model, folder: Path) -> Iterator[Level]:
    """Yield every level, as it is written into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for preset in LEVELS:
        result = quantize(model, make_plan(model, preset), folder / f"demo-{preset}.gguf", force=True)
        share = result.size_bytes / model.size_bytes
        yield Level(preset, result.path, result.size_bytes, share, result.bits_per_weight, result.seconds)


def measure_levels(levels: Sequence[Level], *, command: str, progress: Progress) -> Iterator[Measurement]:
    """Return rows of every level beside the original; those on accuracy only if torch is installed."""
    files = [level.path for level in levels]
    return measure(files, DEMO_MODEL, MEASURED, offline=True, command=command, progress=progress)


def write_text(levels: Sequence[Level]) -> Generation:
    """Return what the 4-bit level makes of the prompt, through llama.cpp."""
    path = next(level.path for level in levels if level.preset == WRITER)
    with Engine(path, context_tokens=256, chat_template=NOT_CHATTING) as engine:
        return engine.generate(PROMPTS[0], max_tokens=MAX_TOKENS, temperature=0.7, seed=1)


def markdown_table(levels: Sequence[Level]) -> str:
    """Return the README's table: what is the same on every machine, so no times."""
    rows = [
        f"| {level.preset} | {describe_bytes(level.size_bytes)} | {level.share:.0%} | {level.bits_per_weight:.2f} "
        f"| {PRESETS[level.preset].summary} |"
        for level in levels
    ]
    return "\n".join(
        ("| level | size | of the original | bits per weight | |", "| --- | ---: | ---: | ---: | --- |", *rows)
    )
