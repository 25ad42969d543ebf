"""Describes files and folders in one form, which the checks of this room read.

A folder is described in GGUF's terms, by the same code that would convert it. Whatever prevents a conversion (an
unknown architecture, no tokenizer) is noted, and the rest is described nonetheless."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import gguf
import numpy as np

from thriftbit.containers.gguf_reader import GGUFFile, read_header
from thriftbit.containers.gguf_values import Metadata, MetadataValue
from thriftbit.errors import ThriftbitError
from thriftbit.library.locate import Located
from thriftbit.sources.architectures import find_architecture
from thriftbit.sources.architectures.rows import EMBEDDING, OUTPUT
from thriftbit.sources.born_small import kind_of
from thriftbit.sources.checkpoint import Checkpoint, open_checkpoint, weight_files
from thriftbit.sources.gguf_source import read_parts
from thriftbit.sources.hub import describe, file_url, parse_hub_id
from thriftbit.sources.model_card import general_metadata
from thriftbit.sources.remote_file import open_remote
from thriftbit.sources.safetensors_file import DTYPE_BITS
from thriftbit.sources.tensor import Tensor
from thriftbit.sources.tokenizers import tokenizer_metadata

T = TypeVar("T")


@dataclass(frozen=True)
class InspectedTensor:
    """type: GGML's name, or safetensors' dtype. shape: numpy order."""

    name: str
    shape: tuple[int, ...]
    type: str
    size_bytes: int

    @property
    def parameters(self) -> int:
        return math.prod(self.shape)

    @property
    def bits_per_weight(self) -> float:
        return 8 * self.size_bytes / self.parameters if self.parameters else 0.0


@dataclass(frozen=True)
class ModelDescription:
    """files: those with weights. metadata: in GGUF's keys. tensors: under the source's own names.

    tied: whether the token embedding is the output matrix, too. parts: the headers of a GGUF, () for a folder.
    problems: sentences on what could not be described in a folder."""

    path: Path
    files: tuple[Path, ...]
    architecture: str | None
    metadata: Metadata
    tensors: tuple[InspectedTensor, ...]
    tied: bool
    parts: tuple[GGUFFile, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def file_type(self) -> str | None:
        """The name that general.file_type stands for: "Q4_K_M" for 15; None for an unknown number."""
        number = self.number("general.file_type")
        name = next((each.name for each in gguf.LlamaFileType if each == number), None)
        return name and name.removeprefix("MOSTLY_").removeprefix("ALL_")

    @property
    def vocabulary_size(self) -> int:
        tokens = self.metadata.get("tokenizer.ggml.tokens")
        return len(tokens) if isinstance(tokens, list) else 0

    def text(self, key: str) -> str | None:
        """Return a text of the metadata; None if it is missing or, in a stranger's file, no text."""
        value = self.metadata.get(key)
        return as_utf8(value) if isinstance(value, str) else None

    def number(self, key: str) -> int | None:
        value = self.metadata.get(key)
        return int(value) if isinstance(value, np.integer) else None


def as_utf8(text: str) -> str:
    """Return the text with ? in place of everything that is not Unicode, which metadata and file names may hold."""
    return text.encode("utf-8", "replace").decode()


def describe_model(path: Path) -> ModelDescription:
    """Return the description of a GGUF or a model folder. Raises ThriftbitError for a path that is missing, damaged or
    neither.

    path: a file, a folder, or the name of a model in safetensors that is in the Hub's cache."""
    if path.is_dir():
        return _open_folder(path)
    hub_id = None if path.exists() or path.is_symlink() else parse_hub_id(path.as_posix())
    if hub_id is not None:
        return _open_folder(describe(hub_id, offline=True)[0])
    return _of_gguf(path, tuple(read_parts(path, any_byte_order=True)))


def describe_remote_model(located: Located) -> ModelDescription:
    """Return the description of a GGUF that is only on the Hub. Only headers are read, those of all parts of a split
    file."""
    assert located.repository is not None
    parts = []
    for name in located.files:
        stream, size_bytes = open_remote(file_url(located.repository, name), f"{located.repository}/{name}")
        parts.append(read_header(Path(name), stream, size_bytes, any_byte_order=True))
    return _of_gguf(Path(located.source), tuple(parts))


def _of_gguf(path: Path, parts: tuple[GGUFFile, ...]) -> ModelDescription:
    metadata = parts[0].metadata
    architecture = metadata.get("general.architecture")
    tensors = [
        InspectedTensor(info.name, info.shape, info.ggml_type.name, info.size_bytes)
        for part in parts
        for info in part.tensors
    ]
    names = {tensor.name for tensor in tensors}
    return ModelDescription(
        path=path,
        files=tuple(part.path for part in parts),
        architecture=as_utf8(architecture) if isinstance(architecture, str) else None,
        metadata=metadata,
        tensors=tuple(tensors),
        tied=EMBEDDING in names and OUTPUT not in names,
        parts=parts,
    )


def _open_folder(folder: Path) -> ModelDescription:
    checkpoint = open_checkpoint(folder)
    config = checkpoint.config
    files = weight_files(str(folder), folder, {entry.name for entry in folder.iterdir()})
    sources = list(checkpoint.tensors.values())
    problems: list[str] = []

    metadata: dict[str, MetadataValue] = {}
    mapped: list[Tensor] = []
    architecture = _attempt(lambda: find_architecture(config), problems)
    if architecture is not None:
        checkpoint = _attempt(lambda: architecture.settled(checkpoint), problems) or checkpoint
        config = checkpoint.config
        metadata |= _attempt(lambda: architecture.metadata(config), problems) or {}
        mapped = _attempt(lambda: architecture.map_tensors(checkpoint), problems) or []
    metadata |= _attempt(lambda: general_metadata(checkpoint, mapped or sources, warn=problems.append), problems) or {}
    embedding = next((tensor for tensor in mapped if tensor.name == EMBEDDING), None)
    if embedding is not None:
        name = str(metadata.get("general.name", ""))
        read = _attempt(lambda: tokenizer_metadata(checkpoint, embedding.rows, name, problems.append), problems)
        metadata |= read or {}

    return ModelDescription(
        path=folder,
        files=tuple(folder / name for name in files),
        architecture=architecture.gguf_name if architecture else _named_architecture(config),
        metadata=metadata,
        tensors=tuple(
            InspectedTensor(as_utf8(tensor.name), tensor.shape, _kind(tensor, checkpoint), _stored_bytes(tensor))
            for tensor in sources
        ),
        tied=bool(mapped) and all(tensor.name != OUTPUT for tensor in mapped),
        problems=tuple(dict.fromkeys(problems)),
    )


def _stored_bytes(tensor: Tensor) -> int:
    return math.ceil(tensor.parameters * (tensor.packed_bits or DTYPE_BITS[tensor.source_dtype]) / 8)


def _kind(tensor: Tensor, checkpoint: Checkpoint) -> str:
    """Return how the tensor is stored: its dtype ("BF16"), or how it is packed ("FP8", "GPTQ")."""
    if tensor.is_packed and checkpoint.packing is not None:
        return kind_of(checkpoint.packing)
    return tensor.source_dtype


def _attempt(describe: Callable[[], T], problems: list[str]) -> T | None:
    """Return the result of `describe`. If it raises ThriftbitError, add the reason to `problems` and return None."""
    try:
        return describe()
    except ThriftbitError as error:
        problems.append(f"It cannot be quantized as it is: {error}")
        return None


def _named_architecture(config: Mapping[str, Any]) -> str | None:
    """Return the name that config.json gives to an architecture without a table."""
    classes = config.get("architectures")
    name = classes[0] if isinstance(classes, list) and classes else config.get("model_type")
    return as_utf8(name) if isinstance(name, str) else None
