"""How many tasks may be computed at once inside a given memory, known before the work begins.

The sizes follow from the model's shapes. What processes share (a layer's weights, mapped from one file) counts once,
what each of them holds counts for each. Fewer workers need less; what does not fit with one worker is refused.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import psutil

from thriftbit.errors import ThriftbitError
from thriftbit.quantization.moments import LARGEST_ROWS, PANEL
from thriftbit.sizes import describe_bytes
from thriftbit.sources.architectures.rows import EMBEDDING, OUTPUT
from thriftbit.sources.model import Model
from thriftbit.sources.tensor import Tensor

RESERVE_BYTES = 1 << 30  # of what is free, for others
PROCESS_BYTES = 400 << 20  # a process with torch and transformers, as it begins
SMALL_PROCESS_BYTES = 120 << 20  # one with numpy alone
_FLOAT = 4
_CHUNK_TOKENS, _VOCABULARY_BYTES, _BATCH_TOKENS = 2048, 64 << 20, 512  # as in calibration_tasks
_GRAPH = 4  # times what the linear layers of a layer get and give: what autograd keeps, and what lies between them


@dataclass(frozen=True)
class Needs:
    """shared_bytes: of all processes together, this one included. task_bytes: of each process that computes.
    kept_bytes: of the result on disk, at most. scratch_bytes: on disk besides, while it is made. largest: what decides,
    for people."""

    shared_bytes: int
    task_bytes: int
    kept_bytes: int
    scratch_bytes: int
    largest: str


@dataclass(frozen=True)
class Memory:
    """allowed_bytes: for all processes of a run together. asked: whether the user said so."""

    allowed_bytes: int
    asked: bool

    @classmethod
    def of(cls, asked_bytes: int | None) -> Memory:
        """asked_bytes: None for what is free, less RESERVE_BYTES."""
        if asked_bytes is not None:
            return cls(asked_bytes, True)
        return cls(max(0, psutil.virtual_memory().available - RESERVE_BYTES), False)

    def workers(self, needs: Needs, wanted: int, doing: str) -> int:
        """Return how many tasks may be computed at once, `wanted` at most. Raises ThriftbitError for none."""
        room = self.allowed_bytes - needs.shared_bytes
        if room < needs.task_bytes:
            least = describe_bytes(needs.shared_bytes + needs.task_bytes)
            allowed = describe_bytes(self.allowed_bytes)
            why = f"--memory allows {allowed}"
            if not self.asked:
                why = f"{allowed} are free beside a reserve of {describe_bytes(RESERVE_BYTES)}"
            raise ThriftbitError(
                f"{doing} takes about {least} of memory ({needs.largest}), and {why}; close other programs, or do it "
                "on a computer with more"
            )
        return max(1, min(wanted, room // max(1, needs.task_bytes)))


def calibration_needs(model: Model, tokens: int, length: int, width: int) -> Needs:
    """tokens: of the text. length: of a window. width: of the hidden states."""
    layers, vocabulary = _layers(model), _vocabulary(model)
    batch = max(length, _BATCH_TOKENS)
    largest = max(layers, key=_parameters)
    widest = max((matrix for layer in layers for matrix in _matrices(layer)), key=lambda matrix: matrix.width)
    inside = max(sum(matrix.width + matrix.matrix_rows for matrix in _matrices(layer)) for layer in layers)
    passes = _GRAPH * _FLOAT * batch * (inside + 2 * width)
    panels = _FLOAT * (PANEL + 3 * _CHUNK_TOKENS) * max(widest.width, width)
    end = 4 * _VOCABULARY_BYTES + 3 * _FLOAT * batch * width
    layer_bytes = _FLOAT * _parameters(largest)
    captured = 2 * tokens * inside
    moments = sum(
        matrix.width**2 + (matrix.matrix_rows**2 if matrix.matrix_rows <= LARGEST_ROWS else 0)
        for layer in layers
        for matrix in _matrices(layer)
        if len(matrix.shape) == 2
    )
    states = 2 * tokens * width * (len(layers) + 3)
    return Needs(
        # two layers' weights, of which one is being read; while the words pass, the output matrix instead
        PROCESS_BYTES + max(2 * layer_bytes, _FLOAT * vocabulary.parameters) + 2 * passes,
        PROCESS_BYTES + max(passes, panels, end),
        moments,
        states + captured + max(2 * layer_bytes, _FLOAT * vocabulary.parameters),
        f"its largest layer has {describe_bytes(layer_bytes)} of weights in float32",
    )


def tuning_needs(model: Model, tokens: int, length: int, file_bytes: int) -> Needs:
    """tokens: of the text. length: of a window. file_bytes: of the rounded matrices."""
    layers = _layers(model)
    batch, largest = max(length, _BATCH_TOKENS), max(layers, key=_parameters)
    widest = max((matrix for layer in layers for matrix in _matrices(layer)), key=lambda matrix: matrix.width)
    inside = max(sum(matrix.width + matrix.matrix_rows for matrix in _matrices(layer)) for layer in layers)
    width = _vocabulary(model).width
    layer_bytes = _FLOAT * _parameters(largest)
    passes = _FLOAT * batch * (inside + 4 * width)
    sums = _FLOAT * (2 * PANEL * widest.width + 4 * _CHUNK_TOKENS * (widest.width + width))
    rounding = max(
        _FLOAT * 3 * matrix.width**2 + rounding_bytes(matrix.matrix_rows, matrix.width)
        for layer in layers
        for matrix in _matrices(layer)
    )
    return Needs(
        PROCESS_BYTES + 4 * layer_bytes,
        PROCESS_BYTES + max(passes, sums, rounding),
        # both streams before and after a layer, what enters its matrices, and two layers in both models
        file_bytes,
        4 * _FLOAT * tokens * width + _FLOAT * tokens * inside + 4 * layer_bytes,
        f"its largest layer has {describe_bytes(layer_bytes)} of weights in float32",
    )


def rounding_needs(matrices: Iterable[Tensor]) -> Needs:
    """matrices: to be rounded, all rows of each together."""
    largest = max(matrices, key=lambda matrix: rounding_bytes(matrix.rows, matrix.width))
    return Needs(
        2 * _FLOAT * largest.parameters + SMALL_PROCESS_BYTES,  # a matrix that is read, and one that is sent
        SMALL_PROCESS_BYTES + rounding_bytes(largest.rows, largest.width),
        0,
        0,
        f"its largest matrix, {largest.name}, is {largest.rows} × {largest.width}",
    )


def rounding_bytes(n: int, width: int) -> int:
    """Return the memory for rounding a matrix of n rows: the moments, what is computed from them, and the matrix."""
    with_rows = n <= LARGEST_ROWS
    moments = MOMENTS_AT_ONCE * width**2 + (MOMENTS_AT_ONCE * n**2 if with_rows else 0)
    return int(_FLOAT * (moments + MATRICES_AT_ONCE * n * width))


# Copies in memory at once, in float32; `test_memory_needed.py` holds them against what is allocated
MOMENTS_AT_ONCE, MATRICES_AT_ONCE = 2.6, 6.0


def _layers(model: Model) -> list[list[Tensor]]:
    """Return the tensors of each layer."""
    found: dict[str, list[Tensor]] = defaultdict(list)
    for tensor in model.tensors:
        if tensor.name.startswith("blk."):
            found[tensor.name.split(".")[1]].append(tensor)
    return list(found.values()) or [list(model.tensors)]


def _matrices(layer: Iterable[Tensor]) -> list[Tensor]:
    return [tensor for tensor in layer if len(tensor.shape) > 1] or list(layer)


def _parameters(layer: Iterable[Tensor]) -> int:
    return sum(tensor.parameters for tensor in layer)


def _vocabulary(model: Model) -> Tensor:
    by_name = {tensor.name: tensor for tensor in model.tensors}
    return by_name.get(OUTPUT) or by_name[EMBEDDING]
