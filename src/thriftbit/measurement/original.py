"""The original as a file that llama.cpp runs, so that a quantized file can be run beside it.

A GGUF is such a file already. A checkpoint is written out first, without loss: in 16 bits if they hold everything, else
in 32. That takes as much disk space as the model itself. So it is announced, and the file is removed as soon as it is
no longer needed (`containers/temporary_folder.py`).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from thriftbit.containers.temporary_folder import place_for_large_files, temporary_folder
from thriftbit.progress import Progress, no_progress
from thriftbit.quantization.gguf_file import file_layout
from thriftbit.quantization.plan import Plan, make_plan
from thriftbit.quantization.quantize import quantize
from thriftbit.sizes import describe_bytes
from thriftbit.sources.model import Model

_logger = logging.getLogger(__name__)
_HOLDS = {"BF16": {"BF16", "MXFP4"}, "F16": {"F16"}}  # format -> dtypes of which it keeps every bit; F32 keeps all


@contextmanager
def original_file(
    model: Model,
    *,
    folder: Path | None = None,
    progress: Progress = no_progress,
) -> Iterator[Path]:
    """Return a GGUF with the model's own weights: the model's file, or one that is deleted at the end of `with`.

    Logs what will be written, where, and how large. folder: to write it into. progress: see `quantize`. Raises
    ThriftbitError for what `quantize` does, too little disk space above all.
    """
    own_file = Path(model.source).expanduser()
    if own_file.is_file():
        yield own_file
        return
    plan = lossless_plan(model)
    with temporary_folder("original", folder or place_for_large_files()) as temporary:
        path = temporary / f"original-{plan.preset}.gguf"
        _logger.info(
            f"llama.cpp runs GGUF files only, so the original is written out: {plan.preset}, "
            f"{describe_bytes(file_layout(model, plan).file_size_bytes)} in {temporary}, deleted afterwards"
        )
        quantize(model, plan, path, progress=progress)
        yield path


def lossless_plan(model: Model) -> Plan:
    """Return the smallest of BF16, F16 and F32 that loses nothing; small tensors are in F32 with any of them."""
    for preset, held in _HOLDS.items():
        plan = make_plan(model, preset)
        if all(plan.formats[tensor.name] == "F32" or tensor.source_dtype in held for tensor in model.tensors):
            return plan
    return make_plan(model, "F32")
