"""The results of a calibration on disk, for the code that quantizes with them. Needs no torch.

A folder with one file for every matrix, and one for the inputs that some matrices share (query, key and value; gate and
up). They are read when asked for. Moments are panels of correlations in half precision (`moments.py`), so together the
files are smaller than the model. Each file says what calibration it belongs to, and has checksums.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from thriftbit.containers.regular_files import read_regular
from thriftbit.errors import ThriftbitError
from thriftbit.formats.format import FloatArray
from thriftbit.library.artefacts import CALIBRATION, DAMAGE, MadeOf, full_disk_explained, made_of, read_made_of
from thriftbit.machine.private_files import open_private, private_folder, write_private
from thriftbit.quantization.curvature import Curvature
from thriftbit.quantization.moments import from_panels, roots, unpacked
from thriftbit.sources.model import Model

METHOD = 6  # its version: what another one left is not used
INDEX = "calibration.json"  # written last: without it the folder is not a calibration
WINDOWS = "windows.npy"
_LARGEST_INDEX_BYTES = 64 << 20
FEWEST_TOKENS = 32  # that reach an expert, for what matters to it to be more than chance
HELD_BACK = 5  # windows are kept for checking, or one in eight if that is less
FEWEST_WINDOWS = 8  # of which one can be held back


def what_it_is_made_of(model: Model, windows: NDArray[np.int64], seed: int = 0) -> MadeOf:
    """windows: (windows, length), token ids of the text. seed: of what is drawn."""
    text = hashlib.sha256(windows.astype("<i8").tobytes()).hexdigest()
    return made_of(CALIBRATION, model, method=METHOD, text=text, windows=list(windows.shape), seed=seed)


def held_back(windows: int) -> NDArray[np.bool_]:
    """Return, for each window, whether it takes no part in the moments."""
    every = max(FEWEST_WINDOWS, -(-windows // HELD_BACK))
    held: NDArray[np.bool_] = np.arange(windows) % every == every - 1
    return held


@dataclass(frozen=True)
class Check:
    """Tokens that took no part in the moments. inputs: float32 (tokens, width). gradients: float32 (tokens, n)."""

    inputs: FloatArray
    gradients: FloatArray

    def cost(self, errors: FloatArray) -> float:
        """errors: float32 (n, width). Return the cost of these tokens, as `Curvature.cost` does; 0 without tokens.

        Every token's gradient meets every token's input. The mean of (gᵀ E x)² over single tokens would need no
        Kronecker product, but from this few tokens it is mostly chance.
        """
        x_size, g_size = (np.linalg.norm(part, axis=1, keepdims=True) for part in (self.inputs, self.gradients))
        total = float(np.sum((x_size * g_size) ** 2, dtype=np.float64)) * len(self.inputs)
        responses = (self.gradients * x_size) @ errors @ (self.inputs * g_size).T
        return float(np.sum(responses * responses, dtype=np.float64)) / total if total > 0 else 0.0


@dataclass(frozen=True)
class Calibration:
    """A folder that `calibrate` wrote.

    made_of: what it depends on. names: the container's tensors that have data. missing: matrices in layers that have
    none. experts: tensors of experts, which have importance only. tokens: how many tokens everything was measured on.
    sharing: for each of `names`, the file of its inputs. left_out: for each of `names` that lost tokens because
    something in them was not finite, how many.
    """

    folder: Path
    made_of: MadeOf
    names: frozenset[str]
    missing: tuple[str, ...]
    tokens: int
    experts: frozenset[str] = frozenset()
    sharing: Mapping[str, str] = field(default_factory=dict, hash=False)
    left_out: Mapping[str, int] = field(default_factory=dict, hash=False)

    def check_belongs(self, model: Model) -> None:
        """Raises ThriftbitError if it is of another model."""
        self.made_of.check_model(model, f"the calibration in {self.folder}")

    @cached_property
    def can_check(self) -> bool:
        """Whether there was enough text to hold some back, on which roundings are checked."""
        return bool(held_back(len(self.windows)).any())

    def importance(self, name: str) -> FloatArray:
        """Return float32 (width,): mean squares of the inputs, as in an importance file. For experts (experts, width);
        experts with too few tokens have the mean of all."""
        if name not in self.experts:
            shared: FloatArray = self._read(self.sharing[name], "importance")
            return shared
        importance: FloatArray = self._read(name, "importance")
        if unheard := self.unheard(name):
            tokens = self.expert_tokens(name)
            importance[unheard] = tokens @ importance / tokens.sum() if tokens.any() else 1.0
        return importance

    def expert_tokens(self, name: str) -> NDArray[np.int64]:
        """Return (experts,): how many tokens reached each expert."""
        tokens: NDArray[np.int64] = self._read(name, "tokens")
        return tokens

    def unheard(self, name: str) -> list[int]:
        """Return the numbers of the experts that too few tokens reached; nothing for tensors without experts."""
        return np.flatnonzero(self.expert_tokens(name) < FEWEST_TOKENS).tolist() if name in self.experts else []

    def curvature(self, name: str) -> Curvature:
        """Return the curvature of the tensor, with rows in the container's order."""
        shared = self.sharing[name]
        scale = roots(self._read(shared, "diagonal")) * np.sqrt(self._read(name, "columns_scale"))
        return Curvature(self._moment(shared, scale), self.rows(name), float(self._read(name, "tokens")))

    def rows(self, name: str) -> FloatArray | None:
        """Return the curvature of the outputs alone."""
        diagonal = self._read(name, "diagonal")
        if not diagonal.size:
            return None
        return self._moment(name, roots(diagonal) * np.sqrt(self._read(name, "rows_scale")))

    def check(self, name: str) -> Check:
        size = self._read(name, "check_size")
        inputs, gradients = self._read(self.sharing[name], "inputs"), self._read(name, "gradients")
        return Check(*(part.astype(np.float32) * (size / np.sqrt(part.shape[1])) for part in (inputs, gradients)))

    def sizes(self, name: str) -> FloatArray:
        """Return float32 (windows, length): the factor of every token's input in the moment of inputs."""
        sizes: FloatArray = self._read(self.sharing[name], "sizes")
        return sizes

    @cached_property
    def windows(self) -> NDArray[np.int64]:
        """Return (windows, length): the token ids of the text, held-back windows included."""
        with self._damage_explained(WINDOWS):
            windows: NDArray[np.int64] = np.load(self.folder / WINDOWS)
        return windows

    def verify(self) -> None:
        """Raises ThriftbitError, and forgets the calibration, if a file is missing, cut off or of another one."""
        for name in sorted({*self.names, *self.experts, *self.sharing.values()}):
            with self._opened(name):
                pass
        _ = self.windows

    def _moment(self, name: str, scale: FloatArray) -> FloatArray:
        with self._opened(name) as file:
            panels = unpacked(lambda key: file[key], len(scale))
            return from_panels(panels, scale.astype(np.float32), len(scale))

    def _read(self, name: str, part: str) -> Any:
        with self._opened(name) as file:
            return file[part]

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.npz"

    @contextmanager
    def _opened(self, name: str) -> Iterator[Mapping[str, Any]]:
        with self._damage_explained(name), self._path(name).open("rb") as raw, np.load(raw) as file:
            if str(file["key"]) != self.made_of.key:
                raise ValueError("of another calibration")
            yield file

    @contextmanager
    def _damage_explained(self, name: str) -> Iterator[None]:
        try:
            yield
        except DAMAGE:
            with suppress(OSError):
                (self.folder / INDEX).unlink(missing_ok=True)
            raise DamagedCalibrationError(
                f"{self._path(name)}: is damaged or of another calibration; calibrate again: the next run does"
            ) from None

    def __repr__(self) -> str:
        return f"Calibration({str(self.folder)!r}, {len(self.names)} matrices)"


class DamagedCalibrationError(ThriftbitError):
    """The calibration has to be made again."""


def open_calibration(folder: Path, made: MadeOf | None = None) -> Calibration:
    """Open what `calibrate` wrote. made: what it has to be made of; anything if None. Raises
    DamagedCalibrationError if it is unfinished, damaged or made of something else."""
    try:
        index = json.loads(read_regular(folder / INDEX, _LARGEST_INDEX_BYTES))
        private_folder(folder)
        names, experts = (frozenset(map(str, index[key])) for key in ("names", "experts"))
        found = read_made_of(folder)
        if found is None or index["key"] != found.key or (made is not None and found != made):
            raise ValueError
        calibration = Calibration(
            folder,
            found,
            names,
            tuple(map(str, index["missing"])),
            int(index["tokens"]),
            experts,
            {name: str(index["sharing"][name]) for name in names},
            {str(name): int(count) for name, count in index["left_out"].items()},
        )
    except (ThriftbitError, ValueError, KeyError, TypeError, OverflowError, RecursionError, AttributeError):
        raise DamagedCalibrationError(f"{folder}: holds no finished calibration; calibrate again") from None
    calibration.verify()
    return calibration


def finish_calibration(
    folder: Path,
    made: MadeOf,
    sharing: Mapping[str, str],
    experts: Iterable[str],
    missing: Iterable[str],
    windows: NDArray[np.int64],
    left_out: Mapping[str, int] | None = None,
) -> Calibration:
    """Write the index that makes a folder with a file for each matrix in `sharing` and each of `experts` a calibration.
    Return it."""
    made.write(folder)
    with full_disk_explained(folder), open_private(folder / WINDOWS, "wb") as file:
        np.save(file, windows)
    tokens = int((~held_back(len(windows))).sum()) * windows.shape[1]
    index = {
        "key": made.key,
        "names": sorted(sharing),
        "experts": sorted(experts),
        "missing": list(missing),
        "sharing": dict(sharing),
        "left_out": dict(left_out or {}),
        "tokens": tokens,
    }
    write_private(folder / INDEX, json.dumps(index).encode())
    return open_calibration(folder, made)


def save_part(folder: Path, made: MadeOf, name: str, **arrays: ArrayLike) -> None:
    """Write the file of a matrix, of shared inputs or of experts, under its name only when it is whole."""
    with writing_part(folder, made, name) as add:
        for key, values in arrays.items():
            add(key, values)


@contextmanager
def writing_part(folder: Path, made: MadeOf, name: str) -> Iterator[Callable[[str, ArrayLike], None]]:
    """As `save_part`, for arrays that come one after the other: yield the function that takes each with its name."""
    unfinished = folder / f"{name}.unfinished"
    with full_disk_explained(folder):
        with open_private(unfinished, "wb") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:

            def add(key: str, values: ArrayLike) -> None:
                with archive.open(f"{key}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, np.asanyarray(values), allow_pickle=False)

            add("key", made.key)
            yield add
        unfinished.replace(folder / f"{name}.npz")
