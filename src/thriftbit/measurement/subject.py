"""What is being measured, as rows name it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
from gguf import LlamaFileType

from thriftbit.containers.gguf_reader import read_gguf
from thriftbit.measurement.measurement import Subject
from thriftbit.sources.model import Model


def describe_subject(model: Model) -> Subject:
    """model: from `open_model`, quantized or not."""
    path = Path(model.source)
    weights_bytes = model.size_bytes
    return Subject(
        name=path.resolve().name if path.exists() else model.source,
        level=_level(model, path),
        fingerprint=model.fingerprint,
        size_bytes=path.stat().st_size if path.is_file() else weights_bytes,
        bits_per_weight=8 * weights_bytes / model.parameters,
    )


def _level(model: Model, path: Path) -> str:
    """Return what a GGUF says it is, "Q4_K_M"; otherwise the type of most of the weights."""
    if path.is_file():
        file_type = read_gguf(path).metadata.get("general.file_type")
        if isinstance(file_type, np.integer) and int(file_type) in set(LlamaFileType):
            name = LlamaFileType(int(file_type)).name
            if name.startswith(("MOSTLY_", "ALL_")):
                return name.partition("_")[2]
    parameters = Counter[str]()
    for tensor in model.tensors:
        parameters[tensor.source_dtype] += tensor.parameters
    return parameters.most_common(1)[0][0]
