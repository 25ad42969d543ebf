"""What calibrating one layer gathers, batch after batch, and the files that it becomes. Needs the extra `torch`.

Vectors of all tokens go to files first, in half precision. Then each moment is computed panel by panel from all of
them, so that no process ever holds a moment, and none is added up from parts that came in some order.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from thriftbit.formats.format import FloatArray
from thriftbit.library.artefacts import MadeOf
from thriftbit.machine.private_files import private_folder, write_private
from thriftbit.network.states import States
from thriftbit.quantization.calibration_data import writing_part
from thriftbit.quantization.calibration_tasks import (
    Batch,
    Gradients,
    Inputs,
    Order,
    PanelTask,
    Returned,
    moment_panel,
)
from thriftbit.quantization.engine.pool import Pool
from thriftbit.quantization.moments import packed, panel_starts, roots

CHECKED_TOKENS = 256  # drawn from the windows that are held back


@dataclass
class _Group:
    """Inputs that some matrices share, of all batches so far."""

    states: States
    sizes: list[FloatArray] = field(default_factory=list)
    shares: list[FloatArray] = field(default_factory=list)
    lost: list[NDArray[np.bool_]] = field(default_factory=list)
    squares: FloatArray | None = None
    diagonal: FloatArray | None = None

    def add(self, first: int, inputs: Inputs) -> None:
        self.states.write(first, inputs.vectors)
        self.sizes.append(inputs.sizes)
        self.shares.append(inputs.shares)
        self.lost.append(inputs.lost)
        self.squares = inputs.squares if self.squares is None else self.squares + inputs.squares
        self.diagonal = inputs.diagonal if self.diagonal is None else self.diagonal + inputs.diagonal


@dataclass
class _Linear:
    """Gradients of one matrix, of all batches so far. states: of all tokens, or of those held back."""

    states: States
    with_rows: bool
    sizes: list[FloatArray] = field(default_factory=list)
    diagonal: FloatArray | None = None
    written: int = 0

    def add(self, gradients: Gradients) -> None:
        if len(gradients.vectors.values):
            self.states.write(self.written, gradients.vectors)
        self.written += len(gradients.vectors.values)
        self.sizes.append(gradients.sizes)
        self.diagonal = gradients.diagonal if self.diagonal is None else self.diagonal + gradients.diagonal


@dataclass(frozen=True)
class _Part:
    """A file to be written: its arrays, and the moment whose panels are added to them."""

    name: str
    arrays: dict[str, ArrayLike]
    states: States
    shares: FloatArray
    diagonal: FloatArray

    def tasks(self, device: str) -> Iterator[PanelTask]:
        divisors = roots(self.diagonal) if len(self.diagonal) else self.diagonal
        return (
            PanelTask(self.states, self.shares, start, divisors, device) for start in panel_starts(len(self.diagonal))
        )


@dataclass
class Layer:
    """One layer of a calibration. sharing, experts, left_out: as of `Calibration`, for the layer's matrices."""

    folder: Path
    made_of: MadeOf
    number: int
    sharing: dict[str, str] = field(default_factory=dict)
    experts: list[str] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)
    heard: dict[str, dict[str, NDArray[Any]]] = field(default_factory=dict)

    def hear(self, experts: dict[str, dict[str, NDArray[Any]]]) -> None:
        """Add what experts got in one more batch."""
        for module, parts in experts.items():
            known = self.heard.setdefault(module, {})
            for name, sums in parts.items():
                known[name] = known[name] + sums if name in known else sums

    def heard_by_matrix(self) -> Iterator[tuple[str, tuple[NDArray[Any], NDArray[np.int64]]]]:
        """Yield the name of each joined matrix, with sums of squares and the number of tokens for each expert."""
        for module, parts in self.heard.items():
            for name, sums in parts.items():
                if name != "tokens":
                    yield f"{module}.{name}", (sums, parts["tokens"])

    # What is known of a layer, for a run that goes on with another one

    def note(self, place: Path, what: str) -> None:
        """what: "experts" or "matrices" """
        known = {"experts": self.experts} if what == "experts" else {"sharing": self.sharing, "left_out": self.left_out}
        write_private(place / f"{what}-{self.number}.json", json.dumps(known).encode())

    def recall(self, place: Path) -> Layer:
        for what in ("experts", "matrices"):
            for name, value in json.loads((place / f"{what}-{self.number}.json").read_bytes()).items():
                setattr(self, name, value)
        return self

    # The backward pass

    def begin(self, place: Path, batches: list[Batch], orders: dict[str, Order], containers: dict[str, str]) -> None:
        """place: a folder for vectors. containers: the container's tensor for each linear layer."""
        shutil.rmtree(place, ignore_errors=True)
        self._place, self._orders, self._containers = private_folder(place), orders, containers
        self._held = np.concatenate([np.repeat(batch.held, batch.shape[1]) for batch in batches])
        self._length = batches[0].shape[1]
        self._groups: dict[tuple[str, ...], _Group] = {}
        self._linears: dict[str, _Linear] = {}
        self._done = 0

    def add(self, returned: Returned) -> None:
        for inputs in returned.inputs:
            if inputs.names not in self._groups:
                path = self._place / f"{inputs.names[0]}.inputs"
                states = States(path, len(self._held), inputs.vectors.values.shape[1])
                self._groups[inputs.names] = _Group(states)
            self._groups[inputs.names].add(self._done, inputs)
        for name, gradients in returned.gradients.items():
            if name not in self._linears:
                with_rows = self._orders[name].with_rows
                tokens = len(self._held) if with_rows else int(self._held.sum())
                states = States(self._place / f"{name}.gradients", tokens, gradients.vectors.values.shape[1])
                self._linears[name] = _Linear(states, with_rows)
            self._linears[name].add(gradients)
        self._done += len(returned.entering.values)

    def write(self, pool: Pool, doing: str, seed: int, device: str) -> Iterator[float]:
        """Write the layer's files. Yield the share that is done now and then."""
        parts = [part for names, group in self._groups.items() for part in self._parts(names, group, seed)]
        panels = pool.in_order(moment_panel, (task for part in parts for task in part.tasks(device)), doing)
        for number, part in enumerate(parts):
            with writing_part(self.folder, self.made_of, part.name) as add:
                for key, values in part.arrays.items():
                    add(key, values)
                for start, panel in zip(panel_starts(len(part.diagonal)), panels, strict=False):
                    for key, values in packed(panel).items():
                        add(f"{key}{start}", values)
            yield (number + 1) / len(parts)
        assert next(panels, None) is None
        shutil.rmtree(self._place)

    def _parts(self, names: tuple[str, ...], group: _Group, seed: int) -> Iterator[_Part]:
        """Yield the file of the inputs, and one for each matrix that has data."""
        assert group.squares is not None and group.diagonal is not None
        sizes, shares, lost = np.concatenate(group.sizes), np.concatenate(group.shares), np.concatenate(group.lost)
        counted, used = ~lost & ~self._held, np.where(self._held, 0, shares)
        matrices = []
        for name in names:
            linear = self._linears[name]
            g_sizes = np.concatenate(linear.sizes)
            counts = (sizes * g_sizes).astype(np.float64)
            if counts[counted].sum() > 0:
                matrices.append((name, linear, g_sizes, counts))
        if not matrices:
            return
        file = f"{self._containers[names[0]]}.inputs"
        together = sizes.astype(np.float64) ** 2 * shares.astype(np.float64) ** 2
        drawn = self._drawn(together, seed)
        arrays: dict[str, ArrayLike] = {
            "importance": group.squares / np.float32(max(1, counted.sum())),
            "diagonal": group.diagonal,
            "sizes": shares.reshape(-1, self._length),
            "inputs": _unit(group.states, drawn),
        }
        yield _Part(file, arrays, group.states, used, group.diagonal)
        for name, linear, g_sizes, counts in matrices:
            yield self._matrix(name, linear, sizes, g_sizes, counts, counted, float(together[counted].sum()), seed)
            container = self._containers[name]
            self.sharing[container] = file
            if left_out := int((lost & ~self._held).sum()):
                self.left_out[container] = left_out

    def _matrix(
        self,
        name: str,
        linear: _Linear,
        sizes: FloatArray,
        g_sizes: FloatArray,
        counts: NDArray[np.float64],
        counted: NDArray[np.bool_],
        total_together: float,
        seed: int,
    ) -> _Part:
        """counts: |x|·|g| of every token. total_together: of the matrices that share the inputs, as one."""
        assert linear.diagonal is not None
        total, total_of_squares = counts[counted].sum(), np.square(counts[counted]).sum()
        size = np.sqrt(total_of_squares / counted.sum())  # so that products are of the size of the mean of (g xᵀ)²
        drawn = self._drawn(counts, seed)
        positions = drawn if linear.with_rows else np.searchsorted(np.flatnonzero(self._held), drawn)
        held = counts[self._held]
        arrays: dict[str, ArrayLike] = {
            "columns_scale": np.float64(size / total_together),
            "rows_scale": np.float64(size / total),
            "tokens": np.float64(total / total_of_squares * total),
            "check_size": np.float32(np.square(held).mean() ** 0.25 if held.any() else 0),
            "gradients": _unit(linear.states, positions),
            "diagonal": linear.diagonal if linear.with_rows else np.empty(0, np.float32),
        }
        with np.errstate(divide="ignore", invalid="ignore"):
            shares = np.sqrt(np.where((g_sizes > 0) & counted, sizes / g_sizes, 0), dtype=np.float32)
        diagonal = linear.diagonal if linear.with_rows else np.empty(0, np.float32)
        return _Part(self._containers[name], arrays, linear.states, shares, diagonal)

    def _drawn(self, counts: NDArray[np.float64], seed: int) -> NDArray[np.int64]:
        """Return the numbers of some held-back tokens, drawn in proportion to how much they count. Sums over them, with
        all scaled to the same size, estimate the sums over all held-back tokens with the least variance."""
        held = counts[self._held]
        if not held.sum() > 0:
            return np.empty(0, np.int64)
        chosen = np.random.default_rng(seed).choice(len(held), CHECKED_TOKENS, p=held / held.sum())
        return np.flatnonzero(self._held)[chosen]


def _unit(states: States, numbers: NDArray[np.int64]) -> NDArray[np.float16]:
    """Return float16 (len(numbers), width): these vectors, scaled to a mean square of one."""
    if not len(numbers):
        return np.empty((0, states.width), np.float16)
    vectors = states.rows(numbers)
    vectors = vectors * (np.sqrt(states.width) / vectors.norm(dim=1, keepdim=True))
    halves: NDArray[np.float16] = vectors.numpy().astype(np.float16)
    return halves
