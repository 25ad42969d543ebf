"""Write what a calibration found as importance data, in the file that llama-imatrix writes and llama-quantize reads.

For each matrix the sums of squared inputs, NAME.in_sum2, and over how many tokens, NAME.counts; `importance.py` is the
way back. Only the diagonal of what a calibration knows fits into such a file.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from thriftbit.containers.gguf_values import MetadataValue
from thriftbit.containers.gguf_writer import Entry, GGUFWriter, layout
from thriftbit.formats import format_named
from thriftbit.quantization.calibration_data import Calibration


def write_importance(
    calibration: Calibration, path: str | Path, *, text: str = "thriftbit", force: bool = False
) -> None:
    """text: the name that the file gives to what was read. force: replace an existing file.

    Raises ThriftbitError if the file exists or cannot be written; it appears whole or not at all.
    """
    float32 = format_named("F32")
    entries, contents = [], {}
    for name in sorted(calibration.names | calibration.experts):
        tokens = calibration.expert_tokens(name) if name in calibration.experts else np.array([calibration.tokens])
        counts = tokens.astype(np.float32)[:, None]
        for part, content in (("in_sum2", calibration.importance(name) * counts), ("counts", counts)):
            entries.append(Entry(f"{name}.{part}", content.shape, float32))
            contents[f"{name}.{part}"] = float32.encode(content)
    length = calibration.windows.shape[1]
    metadata: dict[str, MetadataValue] = {
        "general.type": "imatrix",
        "imatrix.datasets": [text],
        "imatrix.chunk_count": np.uint32(calibration.tokens // length),
        "imatrix.chunk_size": np.uint32(length),
    }
    with GGUFWriter(Path(path), layout(metadata, entries), force=force) as writer:
        for name, blocks in contents.items():
            writer.write(name, [blocks])
