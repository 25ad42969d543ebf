"""Write importance data from a calibration, in the file format that llama-imatrix writes and llama-quantize reads.

For each matrix the file holds NAME.in_sum2, the sums of squared inputs, and NAME.counts, the number of tokens.
`importance.py` reads such files. Only the diagonal of a calibration fits into one.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from thriftbit.containers.entry import Entry
from thriftbit.containers.gguf_values import MetadataValue
from thriftbit.containers.gguf_writer import GGUFWriter, layout
from thriftbit.formats import format_named
from thriftbit.quantization.calibration_data import Calibration


def write_importance(
    calibration: Calibration, path: str | Path, *, text: str = "thriftbit", force: bool = False
) -> None:
    """text: the name of the text, stored in the file. force: replace an existing file.

    Raises ThriftbitError if the file exists or cannot be written. The file appears whole or not at all.
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
