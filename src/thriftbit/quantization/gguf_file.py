"""GGUF as a container: the tensors under their own names, and what the file says about itself, which is the model's
own metadata, what llama-quantize adds, and what we add.

Ours: `thriftbit.version`, `thriftbit.plan` (the plan as compact JSON: read it back with `Plan.from_json`),
`thriftbit.source.fingerprint`, which tells from which weights the file was made, and if they were rounded with a
calibration, `thriftbit.effort` and `thriftbit.calibration.tokens`.

The header comes first in the file, so a hash of all weights would cost reading the model twice; `Model.fingerprint`
samples them instead.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from gguf import GGML_QUANT_VERSION, LlamaFileType

import thriftbit
from thriftbit.containers.gguf_values import Metadata, MetadataValue
from thriftbit.containers.gguf_writer import GGUFWriter, Layout, layout
from thriftbit.quantization.calibration_data import Calibration
from thriftbit.quantization.container import Making
from thriftbit.quantization.importance import ImportanceMatrix
from thriftbit.quantization.plan import Plan
from thriftbit.quantization.presets import PRESETS
from thriftbit.quantization.same import with_scales_apart
from thriftbit.sources.model import Model

REWRITTEN = ("thriftbit.", "quantize.imatrix.")  # a GGUF source may carry these from its own making
FILE_TYPES_BEYOND_GGUF = {"Q2_0": 41}  # llama.cpp's numbers that the gguf package does not have
NO_FINGERPRINT = "0" * 64


def gguf_file(path: Path, model: Model, plan: Plan, making: Making, *, force: bool) -> GGUFWriter:
    """The container (`Container`) that unmodified llama.cpp, Ollama and LM Studio run."""
    layout = file_layout(model, plan, making.importance, making.fingerprint, making.effort, making.calibration)
    return GGUFWriter(path, layout, force=force)


def file_layout(
    model: Model,
    plan: Plan,
    importance: ImportanceMatrix | None = None,
    fingerprint: str = NO_FINGERPRINT,
    effort: str = "plain",
    calibration: Calibration | None = None,
) -> Layout:
    """Return the exact header and size of the file. fingerprint and calibration, which take time, do not change the
    size."""
    metadata = dict(file_metadata(model, plan, importance, fingerprint))
    if effort != "plain":
        metadata["thriftbit.effort"] = effort
        metadata["thriftbit.calibration.tokens"] = np.uint32(calibration.tokens if calibration else 0)
    stored, stored_plan = with_scales_apart(model, plan)
    return layout(metadata, stored_plan.entries(stored))


def file_metadata(model: Model, plan: Plan, importance: ImportanceMatrix | None, fingerprint: str) -> Metadata:
    metadata: dict[str, MetadataValue] = {"general.architecture": model.architecture}
    metadata |= {key: value for key, value in model.metadata.items() if not key.startswith(REWRITTEN)}
    metadata["general.quantization_version"] = np.uint32(GGML_QUANT_VERSION)
    metadata["general.file_type"] = np.uint32(_file_type(model, plan))
    if importance is not None:
        metadata["quantize.imatrix.file"] = importance.path.name
        if importance.datasets:
            metadata["quantize.imatrix.dataset"] = importance.datasets[0]
        metadata["quantize.imatrix.entries_count"] = np.uint32(len(importance.entries))
        if importance.chunks:
            metadata["quantize.imatrix.chunks_count"] = np.uint32(importance.chunks)
    metadata["thriftbit.version"] = thriftbit.__version__
    metadata["thriftbit.plan"] = plan.to_json(compact=True)
    metadata["thriftbit.source.fingerprint"] = fingerprint
    return metadata


def _file_type(model: Model, plan: Plan) -> int:
    """Return llama.cpp's number for the mix of formats: the preset's, or else the format's with the most weights."""
    most = plan.most_common_format(model)
    names = [plan.preset] if plan.preset in PRESETS else [f"{most}_M", most]
    for name in names:
        if name in FILE_TYPES_BEYOND_GGUF:
            return FILE_TYPES_BEYOND_GGUF[name]
        for kind in (f"MOSTLY_{name}", f"ALL_{name}"):
            if kind in LlamaFileType.__members__:
                return LlamaFileType[kind]
    return LlamaFileType.GUESSED
