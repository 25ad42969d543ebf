"""Weights that are small already, carried into the file without any change.

Three kinds of source hold values that a GGUF format has too: packed checkpoints whose numbers and scales are those of
a GGML format (`SameRows`), GGUF files that are quantized already, and 16-bit checkpoints that were trained for Q4_0.
Wherever a plan gives such a tensor the format that holds it, its blocks are carried over, and every block is decoded
again and compared before it is written. `--to same` is the plan that does so for the whole model. Where a format's
blocks lack the scale of the whole tensor (NVFP4), the scale becomes a tensor of its own (`with_scales_apart`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

import numpy as np

from thriftbit.errors import ThriftbitError, UsageError, enumeration
from thriftbit.formats import FORMATS, format_named
from thriftbit.formats.format import ByteArray, Format
from thriftbit.formats.q4_0_grid import BLOCK, q4_0_on_grid
from thriftbit.quantization.plan import CUSTOM, Plan
from thriftbit.quantization.presets import KEPT_FORMAT, is_quantizable
from thriftbit.sources.model import Model
from thriftbit.sources.tensor import FloatArray, SameRows, Tensor
from thriftbit.sources.tensor_scales import can_be_apart, scales_apart

TRAINED_FOR = "Q4_0"
UNCHANGED = "the weights of the source, unchanged"
PLAIN = ("F32", "BF16", "F16")
_ROWS_TRIED = 32


def same_plan(model: Model) -> Plan:
    """Return the plan whose file holds exactly the weights of the source;
    UsageError if no format holds some of them."""
    formats: dict[str, str] = {}
    changed: list[Tensor] = []
    names = {tensor.name for tensor in model.tensors}
    for tensor in model.tensors:
        held = held_by(tensor, names) if is_quantizable(tensor) else KEPT_FORMAT
        if held is None:
            changed.append(tensor)
        formats[tensor.name] = held or KEPT_FORMAT
    if changed:
        raise UsageError(
            f"no format of GGUF but F32 holds these weights exactly: {enumeration([each.name for each in changed])}. "
            "On average Q8_0 comes within 0.7% of them and BF16 within 0.2%; --to F32 keeps them, in 4 bytes each"
        )
    return Plan(formats, CUSTOM, UNCHANGED)


def held_by(tensor: Tensor, names: Collection[str]) -> str | None:
    """names: of all tensors of the model. Return the format that holds the tensor exactly, in the fewest bits that are
    known to; None if only F32 does."""
    same = tensor.same_format
    if same is not None and same in FORMATS and can_be_apart(tensor, names):
        return same
    if is_trained_for_q4_0(tensor):
        return TRAINED_FOR
    return tensor.source_dtype if tensor.source_dtype in PLAIN and not tensor.is_packed else None


def with_scales_apart(model: Model, plan: Plan) -> tuple[Model, Plan]:
    """Return what the container stores: a tensor that is carried over and has a scale beside its blocks becomes two."""
    names, formats = {tensor.name for tensor in model.tensors}, dict(plan.formats)
    tensors: list[Tensor] = []
    for tensor in model.tensors:
        carried = isinstance(tensor.read, SameRows) and _is_held(tensor, plan.formats[tensor.name], names)
        stored = scales_apart(tensor) if carried else (tensor,)
        formats |= {scale.name: KEPT_FORMAT for scale in stored[1:]}
        tensors += stored
    if len(tensors) == len(model.tensors):
        return model, plan
    return replace(model, tensors=tuple(tensors)), replace(plan, formats=formats)


def is_trained_for_q4_0(tensor: Tensor) -> bool:
    """Return whether the weights lie on Q4_0's grid, by some of the rows; of plain 16-bit weights only."""
    if tensor.source_dtype not in PLAIN or tensor.is_packed or tensor.width % BLOCK or tensor.rows < 2:
        return False
    some = np.unique(np.linspace(0, tensor.rows - 1, _ROWS_TRIED).astype(int))
    first = tensor.load(0, 1)
    if not q4_0_on_grid(first, tensor.source_dtype)[1].all():
        return False  # nearly always
    rows = np.concatenate([tensor.load(row, row + 1) for row in map(int, some)])
    return bool(rows.any()) and bool(q4_0_on_grid(rows, tensor.source_dtype)[1].all())


class CarriedOver:
    """The tensors of a plan that are carried over, and how. Its length: how many of them arrived without any change."""

    def __init__(self, model: Model, plan: Plan) -> None:
        self._all = plan.provenance == UNCHANGED
        self._changed: set[str] = set()
        names = {tensor.name for tensor in model.tensors}
        self._formats: Mapping[str, Format] = {
            tensor.name: format_named(plan.formats[tensor.name])
            for tensor in model.tensors
            if plan.formats[tensor.name] not in PLAIN and _is_held(tensor, plan.formats[tensor.name], names)
        }

    def __contains__(self, name: str) -> bool:
        return name in self._formats

    def __len__(self) -> int:
        return len(self._formats) - len(self._changed)

    def blocks(self, tensor: Tensor, start: int, rows: FloatArray) -> ByteArray:
        """rows: float32 (n, width), those of the tensor from `start` on. Returns uint8 (n, bytes of a row)."""
        format = self._formats[tensor.name]
        if not np.isfinite(rows).all():
            row = start + int(np.argwhere(~np.isfinite(rows))[0, 0])
            raise ThriftbitError(f"{tensor.name}, row {row}: not all weights are numbers; the model is damaged")
        if isinstance(tensor.read, SameRows):
            blocks = tensor.read.blocks(start, start + len(rows))
            if not np.array_equal(format.decode(blocks), rows, equal_nan=True):
                raise RuntimeError(f"{tensor.name}, row {start} and on: {format.name} does not hold these weights")
            return blocks
        found, held = q4_0_on_grid(rows, tensor.source_dtype)
        if not held.all() and not self._all:  # trained for the format, and perhaps changed later
            self._changed.add(tensor.name)
            found[~held] = format.encode(rows.reshape(-1, BLOCK)[~held])
        elif not held.all():
            row = start + int(np.flatnonzero(~held)[0]) * BLOCK // tensor.width
            raise ThriftbitError(
                f"{tensor.name}: most weights lie on the grid of {format.name}, and those of row {row} do not, so it "
                "cannot be kept exactly; the file may be damaged. Choose another level (--to Q4_K_M)"
            )
        return found.reshape(len(rows), format.row_bytes(tensor.width))


def _is_held(tensor: Tensor, format: str, names: Collection[str]) -> bool:
    held = tensor.same_format == format and can_be_apart(tensor, names)
    return held or (format == TRAINED_FOR and is_trained_for_q4_0(tensor))
