"""A whole model encoded, by llama.cpp's encoder or by ours, and kept as the blocks that a file would hold.

Each in a process of its own, so that time and memory are the encoder's alone. What is finished in a folder is not done
again, and a tuning that was interrupted goes on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from peers import llama_cpp
from peers.own_process import Cost, in_own_process
from thriftbit import Model, Plan, Tensor, open_model
from thriftbit.formats import Format, format_named
from thriftbit.network.weights import Weights
from thriftbit.quantization.calibrated import encode_calibrated
from thriftbit.quantization.calibration import calibrate_windows
from thriftbit.quantization.calibration_data import INDEX, Calibration, open_calibration
from thriftbit.quantization.tuning import tune_in

# The first four use what calibration found: of the first two, the mean squares of inputs alone
LLAMA_CPP, PLAIN, CALIBRATED, TUNED = "llama.cpp", "plain", "calibrated", "tuned"
LLAMA_CPP_ALONE, PLAIN_ALONE = "llama.cpp, no data", "plain, no data"
COST = "cost.json"  # written last
Encode = Callable[[Tensor, Format], tuple[NDArray[np.uint8], str]]


@dataclass(frozen=True)
class Encoded:
    """encoder: one of the above. folder: of the blocks. kept_plain: what was not rounded as a whole, and why."""

    encoder: str
    plan: Plan
    folder: Path
    cost: Cost
    kept_plain: Mapping[str, str]

    def decoded(self, tensor: Tensor, start: int, stop: int) -> NDArray[np.float32]:
        """Return float32 (stop - start, width): those rows, as the file has them."""
        format = format_named(self.plan.formats[tensor.name])
        blocks = np.load(self.folder / f"{tensor.name}.npy", mmap_mode="r")[start:stop]
        return format.decode(np.ascontiguousarray(blocks))

    def weights(self, model: Model) -> Weights:
        def as_encoded(tensor: Tensor) -> Tensor:
            if format_named(self.plan.formats[tensor.name]).block_size == 1:
                return tensor
            return replace(tensor, read=lambda start, stop: self.decoded(tensor, start, stop))

        return Weights(replace(model, tensors=tuple(map(as_encoded, model.tensors))))


def encoded(source: str, plan: Plan, encoder: str, calibration: Path | None, folder: Path) -> Encoded:
    """source: of the model. plan: a format for every tensor. calibration: its folder, if the encoder needs one.
    folder: gets a folder for the encoder."""
    folder = folder / encoder.replace(", ", "-").replace(" ", "-")
    if not (folder / COST).exists():
        folder.mkdir(parents=True, exist_ok=True)
        kept_plain, cost = in_own_process(1, _encode, source, plan.to_json(), encoder, calibration, folder)
        (folder / COST).write_text(json.dumps({"kept_plain": kept_plain, "cost": asdict(cost)}), encoding="utf-8")
    done = json.loads((folder / COST).read_text(encoding="utf-8"))
    return Encoded(encoder, plan, folder, Cost(**done["cost"]), done["kept_plain"])


def calibrated(source: str, windows: NDArray[np.int64], folder: Path) -> tuple[Calibration, Cost | None]:
    """Return a calibration on those windows, and what it cost if it was not there before."""
    cost = None
    if not (folder / INDEX).exists():
        cost = in_own_process(1, _calibrate, source, windows, folder)[1]
    return open_calibration(folder), cost


def _calibrate(source: str, windows: NDArray[np.int64], folder: Path) -> None:
    calibrate_windows(open_model(source), windows, folder)


def _encode(source: str, json_plan: str, encoder: str, calibration: Path | None, folder: Path) -> dict[str, str]:
    """Return why tensors were not rounded as a whole, by the tensor's name."""
    model, kept_plain = open_model(source), dict[str, str]()
    plan = Plan.from_json(json_plan, model)
    encode = _encoder(model, plan, encoder, open_calibration(calibration) if calibration else None, folder)
    for tensor in model.tensors:
        format = format_named(plan.formats[tensor.name])
        if format.block_size > 1:
            blocks, note = encode(tensor, format)
            np.save(folder / f"{tensor.name}.npy", blocks)
            if note:
                kept_plain[tensor.name] = note
    return kept_plain


def _encoder(model: Model, plan: Plan, encoder: str, calibration: Calibration | None, folder: Path) -> Encode:
    def importance(tensor: Tensor) -> NDArray[np.float32] | None:
        known = calibration is not None and tensor.name in calibration.names
        return calibration.importance(tensor.name) if calibration and known else None

    def whole(tensor: Tensor, format: Format) -> tuple[NDArray[np.uint8], str]:
        assert calibration is not None
        outcome = encode_calibrated(tensor.load(), format, calibration, tensor.name)
        return outcome.blocks, outcome.note

    if encoder in (LLAMA_CPP, LLAMA_CPP_ALONE):
        return lambda tensor, format: (llama_cpp.encode(tensor.load(), format, importance(tensor)), "")
    if encoder in (PLAIN, PLAIN_ALONE):
        return lambda tensor, format: (format.encode(tensor.load(), importance(tensor)), "")
    if encoder == CALIBRATED:
        return whole
    assert encoder == TUNED and calibration is not None
    rounded = tune_in(model, plan, calibration, folder / "rounded")
    return lambda tensor, format: (
        (rounded.blocks(tensor.name), rounded.note(tensor.name)) if tensor.name in rounded else whole(tensor, format)
    )
