"""The file that is to be handed to another program, and whether that program can load it at all.

What is refused here is what no program built on llama.cpp loads: files that hold no model, architectures that the
llama.cpp in the box does not know, and the two types that exist only while it computes. Our reader refuses types that
llama.cpp never had (those of ik_llama.cpp, those it removed) and big-endian files. What one program alone cannot load
is in that program's file.

Left out: trying the model. `thriftbit chat FILE` does that.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from thriftbit.containers.gguf_reader import GGUFFile
from thriftbit.errors import ThriftbitError, shown
from thriftbit.library.content import Content, gguf_content, judge
from thriftbit.library.kinds import EMBEDDING, RERANKER, TEXT, cannot
from thriftbit.library.names import parse_quantization
from thriftbit.runtime.architectures import llama_cpp_knows
from thriftbit.sources.gguf_source import PART_NAME, read_parts
from thriftbit.strangers import quoted

_ONLY_WHILE_COMPUTING = ("Q8_1", "Q8_K")
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_.\-]+")
_NAME_LIMIT = 80  # characters: what Ollama allows for each part of a name, and plenty for the others


@dataclass(frozen=True)
class ExportedFile:
    """A GGUF file, all parts of it. files: where they really are, links followed, the first part first; their names are
    in `file_names`. content: what the headers say."""

    path: Path
    files: tuple[Path, ...]
    file_names: tuple[str, ...]
    headers: tuple[GGUFFile, ...]
    content: Content

    @property
    def size_bytes(self) -> int:
        return sum(header.file_size_bytes for header in self.headers)

    @property
    def quantization(self) -> str:
        """ "Q4_K_M": what it is called by, or else what it is."""
        claimed = parse_quantization(self.path.name)
        return claimed.name if claimed else judge(self.content, self.path.name).label.removeprefix("mostly ")

    @property
    def model_name(self) -> str:
        """The file's name without its precision, in letters that every program takes."""
        part = PART_NAME.fullmatch(self.path.name)
        stem = part["prefix"] if part else re.sub(r"\.gguf$", "", self.path.name, flags=re.IGNORECASE)
        bare = re.sub(rf"[-_. ]*{re.escape(self.quantization)}$", "", stem, flags=re.IGNORECASE)
        return as_name(bare) or as_name(stem) or "model"

    def text(self, key: str) -> str | None:
        """Return a text in the metadata; None if it is something else, or not there."""
        value = self.headers[0].metadata.get(key)
        return value if isinstance(value, str) else None

    def number(self, key: str) -> float | None:
        value: Any = self.headers[0].metadata.get(key)
        if isinstance(value, np.integer):
            return int(value)
        return round(float(value), 6) if isinstance(value, np.floating) and np.isfinite(value) else None


def read_exported_file(path: Path) -> ExportedFile:
    """Return the file, its other parts with it; ThriftbitError if it is none, or nothing that llama.cpp would load."""
    if path.is_dir():
        raise ThriftbitError(
            f"{path} is a folder; export takes a GGUF file: `thriftbit quantize {quoted(path)}` makes one"
        )
    headers = read_parts(path)
    content = gguf_content(headers)
    _check_loads(path, content, headers)
    files = tuple(Path(header.path).resolve() for header in headers)
    return ExportedFile(path, files, tuple(Path(header.path).name for header in headers), tuple(headers), content)


def as_name(text: str) -> str:
    """Return the text with everything but letters, digits, "_", "." and "-" replaced; empty if nothing is left."""
    return _NOT_IN_NAMES.sub("-", text).strip("-._")[:_NAME_LIMIT].rstrip("-._")


def _check_loads(path: Path, content: Content, headers: Sequence[GGUFFile]) -> None:
    if content.kind not in (TEXT, EMBEDDING, RERANKER):
        raise cannot(content.kind, path, "other programs cannot run it as a model of its own")
    if content.architecture is None or not llama_cpp_knows(content.architecture):
        raise ThriftbitError(
            f"{path}: the llama.cpp here does not know the architecture {shown(content.architecture)}, and neither do "
            "programs built on it. If the model is newer: pip install --upgrade xllamacpp"
        )
    for header in headers:
        for info in header.tensors:
            if info.ggml_type.name in _ONLY_WHILE_COMPUTING:
                raise ThriftbitError(
                    f"{path}: {shown(info.name)} is stored as {info.ggml_type.name}, which llama.cpp has for "
                    "intermediate results only and cannot load; quantize the original model again"
                )
