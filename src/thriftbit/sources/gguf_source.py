"""A GGUF file as a source: already converted, in 16 or 32 bits, perhaps split into parts.

Everything but the weights' precision is carried over as it is: names, shapes, tokenizer, and the metadata of any
architecture, known here or not. The writer decides file type, quantization version and splitting anew.

A GGUF that is quantized already is refused unless asked for: each quantization adds its own loss, and the result is
larger and worse than one made from the original. Where the original is gone, `allow_requantize` decodes it.

Splitting follows llama.cpp's gguf-split: name-00001-of-00003.gguf, all metadata in the first part, `split.no` (from 0),
`split.count` in each, `split.tensors.count` over all. Any part may be given.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType

from thriftbit.containers.ggml_types import format_for
from thriftbit.containers.gguf_reader import GGUFFile, TensorInfo, read_gguf
from thriftbit.containers.gguf_values import Metadata
from thriftbit.containers.unfinished_download import how_to_finish
from thriftbit.errors import ThriftbitError, enumeration, shown
from thriftbit.formats import Format
from thriftbit.sources.architectures.roles import role_of
from thriftbit.sources.model import Model
from thriftbit.sources.tensor import ByteArray, FloatArray, SameRows, Tensor
from thriftbit.sources.tensor_scales import with_scales_joined

_logger = logging.getLogger(__name__)

FULL_PRECISION = (GGMLQuantizationType.F32, GGMLQuantizationType.F16, GGMLQuantizationType.BF16)
_FULL_PRECISION_NAMES = frozenset(kind.name for kind in FULL_PRECISION)
PART_NAME = re.compile(r"(?P<prefix>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")

ARCHITECTURE = "general.architecture"
LEFT_BEHIND = (ARCHITECTURE, "general.file_type", "general.quantization_version")


def open_gguf(path: Path) -> Model:
    """Return the model in a GGUF file, all parts of it if it is split. Raises ThriftbitError for a part that is missing
    or does not belong, and for a file that holds no model."""
    return model_of_parts(read_parts(path), path)


def model_of_parts(parts: Sequence[GGUFFile], path: Path) -> Model:
    """Return the model that these headers describe together. path: what errors call it."""
    architecture = parts[0].metadata.get(ARCHITECTURE)
    if not isinstance(architecture, str):
        raise ThriftbitError(f"{path} does not say which architecture it is ({ARCHITECTURE}): it holds no model")
    _check_tensors(path, parts)
    return Model(
        architecture=architecture,
        metadata=_carried_over(parts[0].metadata),
        tensors=with_scales_joined(_tensor(part, info) for part in parts for info in part.tensors),
        source=str(path),
        quantized_source=any(info.ggml_type not in FULL_PRECISION for part in parts for info in part.tensors),
    )


def read_parts(path: Path, *, any_byte_order: bool = False) -> list[GGUFFile]:
    """Return the headers of all parts of a split GGUF, whichever part is given; one header if it is not split.

    ThriftbitError if a part is missing or is not what its name says. any_byte_order: see `read_gguf`."""
    given = read_gguf(path, any_byte_order=any_byte_order)
    count = _number(given, "split.count") or 1
    if count == 1:
        return [given]
    name = PART_NAME.fullmatch(path.name)
    if name is None or int(name["count"]) != count:
        raise ThriftbitError(
            f"{path} is one of {count} parts of a model and is not named like one (NAME-00001-of-{count:05d}.gguf): "
            "give the parts back their names"
        )
    paths = [path.with_name(f"{name['prefix']}-{number:05d}-of-{count:05d}.gguf") for number in range(1, count + 1)]
    missing = [part.name for part in paths if not part.exists()]
    if missing:
        raise ThriftbitError(
            f"{path} is one of {count} parts; missing beside it: {enumeration(missing)}. {how_to_finish(path)}"
        )
    parts = [read_gguf(part, any_byte_order=any_byte_order) for part in paths]
    for index, part in enumerate(parts):
        if _number(part, "split.no") != index or _number(part, "split.count") != count:
            raise ThriftbitError(f"{part.path} is not part {index + 1} of {count}, which its name says it is")
    return parts


def _check_tensors(path: Path, parts: Sequence[GGUFFile]) -> None:
    origins: dict[str, Path] = {}
    for part in parts:
        for info in part.tensors:
            if info.name in origins:
                raise ThriftbitError(f"{info.name!r} is both in {origins[info.name]} and in {part.path}")
            origins[info.name] = part.path
    expected = _number(parts[0], "split.tensors.count")
    if len(parts) > 1 and expected is not None and expected != len(origins):
        raise ThriftbitError(f"{path}: the parts hold {len(origins)} tensors together, and should hold {expected}")
    if not origins:
        raise ThriftbitError(f"{path} holds no tensors, only metadata: there is nothing to quantize")


def check_precision(model: Model, *, allow_requantize: bool) -> None:
    """Raises ThriftbitError for a model whose weights are quantized; with `allow_requantize` it is a warning."""
    if not model.quantized_source:
        return
    if (undecoded := undecodable(model)) is not None:
        raise ThriftbitError(
            f"{model.source} is quantized already, to {undecoded}, which can be run here but not decoded. Use the "
            "original or its F16 or BF16 GGUF"
        )
    kinds = Counter(t.source_dtype for t in model.tensors if t.source_dtype not in _FULL_PRECISION_NAMES)
    loss = (
        f"{model.source} is quantized already (mostly {kinds.most_common(1)[0][0]}), and quantizing it again adds a "
        "second loss to the first"
    )
    if not allow_requantize:
        raise ThriftbitError(
            f"{loss}. Use the original or its F16 or BF16 GGUF; if there is none, --allow-requantize takes this one"
        )
    _logger.warning(f"{loss}. The same size made from the original would be better.")


def undecodable(model: Model) -> str | None:
    """Return a type of weights in this model that neither Thriftbit nor gguf can decode; None if there is none."""
    return next((tensor.source_dtype for tensor in model.tensors if tensor.undecoded is not None), None)


def _carried_over(metadata: Metadata) -> Metadata:
    return {key: value for key, value in metadata.items() if key not in LEFT_BEHIND and not key.startswith("split.")}


def _tensor(file: GGUFFile, info: TensorInfo) -> Tensor:
    name, format = info.ggml_type.name, format_for(info.ggml_type)
    read = partial(_read_rows, file, info, format)
    same = SameRows(read, lambda: name, partial(_read_blocks, file, info))
    undecoded = None if format.can_decode else partial(_read_blocks, file, info)
    rows = read if info.ggml_type in FULL_PRECISION else same
    return Tensor(info.name, info.shape, name, rows, role_of(info.name), undecoded=undecoded)


def _read_rows(file: GGUFFile, info: TensorInfo, format: Format, start: int, stop: int) -> FloatArray:
    try:
        return format.decode(file.read(info, start, stop))
    except ThriftbitError as error:
        if format.can_decode:
            raise
        raise ThriftbitError(f"{file.path}: {shown(info.name)}: {error}") from None


def _read_blocks(file: GGUFFile, info: TensorInfo, start: int, stop: int) -> ByteArray:
    return file.read(info, start, stop)


def _number(file: GGUFFile, key: str) -> int | None:
    value = file.metadata.get(key)
    if value is not None and not isinstance(value, np.integer):
        raise ThriftbitError(f"{file.path}: {key} should be a whole number")
    return None if value is None else int(value)
