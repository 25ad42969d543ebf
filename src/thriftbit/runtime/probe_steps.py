"""What a token costs beside the reading of its weights: the steps of every layer, and looking back at the text.

Three models tell the steps apart from the weights: wide layers, narrow layers, and a single narrow one, which at the
end of a long text also tells what looking back costs. They are written once and timed with each number of threads that
is asked about, in turns.

Left out: what a vocabulary costs, which is choosing among it and was found small (`machine/predict.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from thriftbit.errors import ThriftbitError
from thriftbit.machine.profile import StepCost
from thriftbit.runtime.probe_model import NARROW, WIDE, layers_for, write_probe_model
from thriftbit.runtime.probe_rates import time_looking_back, time_model
from thriftbit.runtime.probe_results import attention_seconds, step_cost

_FORMAT = "Q4_0"
_FEWEST_TURNS, _MOST_TURNS = 2, 4
NOISE = "lost in the noise of what else runs; measure again when it rests"


class StepProbe:
    """Context manager: three files of the size in the folder, gone at its end."""

    def __init__(self, folder: Path, size_bytes: int) -> None:
        self._folder, self._size_bytes = folder, size_bytes

    def __enter__(self) -> StepProbe:
        shapes = ((WIDE, self._size_bytes), (NARROW, self._size_bytes), (NARROW, 0))
        self._models = [
            write_probe_model(self._folder / f"step-{index}.gguf", _FORMAT, layers_for(_FORMAT, size, shape), shape)
            for index, (shape, size) in enumerate(shapes)
        ]
        return self

    def __exit__(self, *raised: object) -> None:
        for model in self._models:
            with suppress(OSError):
                model.path.unlink()

    def measure(self, threads: int, seconds: float, tell: Callable[[], None]) -> StepCost | None:
        """seconds: for each of the models in each turn. tell: is called before each. -> None where a layer's cost is
        lost in noise. Raises ThriftbitError if llama.cpp cannot run them so."""
        timed: list[list[float]] = [[] for _ in self._models]
        cost: StepCost | None = None
        for turn in range(_MOST_TURNS):
            if turn >= _FEWEST_TURNS and cost is not None:
                break
            for index, model in enumerate(self._models):
                tell()
                timings = time_model(model, threads, seconds, reading=False)
                timed[index] += timings.token_seconds
            cost = step_cost(threads, list(zip(self._models, timed, strict=True)))
        if cost is None:
            return None
        tell()
        return attention_seconds(cost, self._models[-1], NARROW, self._looking_back(threads))

    def _looking_back(self, threads: int) -> float | None:
        try:
            return time_looking_back(self._models[-1], threads)
        except ThriftbitError:
            return None
