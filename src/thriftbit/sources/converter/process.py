"""llama.cpp's converter in a process of its own, asked for rows of the tensors that it computes.

The problem: the converter is somebody else's program. It imports torch and a `gguf` package of its own, writes a whole
file, and for some models would run Python code that the model's folder brings. The choice: a process that sees the
folder without programs, no token, and no network (`child.py`), and that is asked for rows like any other source.
Nothing is copied to disk. Its memory holds one tensor of the model; of stacked experts, one expert."""

from __future__ import annotations

import contextlib
import json
import math
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType, GGUFValueType

from thriftbit.containers.ggml_types import format_for
from thriftbit.containers.gguf_values import NUMBER_TYPES, MetadataValue
from thriftbit.containers.temporary_folder import make_temporary_folder, remove_temporary_folder
from thriftbit.errors import ThriftbitError, shown
from thriftbit.formats import Format
from thriftbit.sources.architectures import role_of
from thriftbit.sources.checkpoint import Checkpoint
from thriftbit.sources.converter.finding import Converter
from thriftbit.sources.converter.folder import has_next_token_layers, lay_out
from thriftbit.sources.tensor import FloatArray, Tensor

_CHILD = Path(__file__).with_name("child.py")
_SECRETS = ("TOKEN", "KEY", "SECRET", "PASSWORD", "CREDENTIAL")
_LENGTH_BYTES = 8
_MOST_DESCRIPTION_BYTES = 256 << 20
_UNKNOWN = ("NotImplementedError", "AttributeError", "ImportError", "ModuleNotFoundError")


class ConverterProcess:
    """metadata: what the converter says of the model, `general.*` and `tokenizer.*` excluded. tensors: under their
    GGUF names, computed when they are read. architecture: GGUF's name of the family.

    The process ends with this object, at the latest with this program. Raises ThriftbitError if the converter cannot
    convert the model, with its own words.
    """

    def __init__(self, converter: Converter, checkpoint: Checkpoint, *, trust_code: bool = False) -> None:
        self._where = str(checkpoint.path)
        self._asking = threading.Lock()
        self._folder = make_temporary_folder("converter")
        self._log = (self._folder / "log").open("w+b")
        self._process: subprocess.Popen[bytes] | None = None
        self._end = weakref.finalize(self, _end, self._log, self._folder, [])
        model = self._folder / "model"
        model.mkdir()
        lay_out(checkpoint, model, trust_code=trust_code)
        options = ["--trusted"] if trust_code else []
        options += [] if has_next_token_layers(checkpoint) else ["--without-next-token-layers"]
        self._process = subprocess.Popen(
            [sys.executable, "-E", "-P", "-B", str(_CHILD), str(converter.folder), str(model), *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            cwd=self._folder,
            env=_environment(self._folder / "home"),
        )
        self._end.detach()
        self._end = weakref.finalize(self, _end, self._log, self._folder, [self._process])
        described = json.loads(self._receive(_MOST_DESCRIPTION_BYTES))
        if "error" in described:
            raise self._refused(described["error"])
        keys = {str(entry["key"]): _metadata_value(entry) for entry in described["metadata"]}
        self.architecture = str(keys["general.architecture"])
        self.metadata: dict[str, MetadataValue] = {
            key: value for key, value in keys.items() if not key.startswith(("general.", "tokenizer."))
        }
        self.tensors = tuple(
            self._tensor(number, entry, _dtype_of(checkpoint)) for number, entry in enumerate(described["tensors"])
        )

    def _tensor(self, number: int, entry: Mapping[str, Any], dtype: str) -> Tensor:
        name, shape = str(entry["name"]), tuple(int(size) for size in entry["shape"])
        stored = GGMLQuantizationType[entry["type"]]
        try:
            read = partial(self._read_rows, number, shape[-1], format_for(stored))
        except ThriftbitError as error:
            raise ThriftbitError(f"{self._where}: {shown(name)}: {error}") from None
        return Tensor(name, shape, dtype if stored.name == "F32" else stored.name, read, role_of(name))

    def _read_rows(self, number: int, width: int, format: Format, start: int, stop: int) -> FloatArray:
        with self._asking:
            assert self._process is not None and self._process.stdin is not None
            try:
                self._process.stdin.write(f"{number} {start} {stop}\n".encode())
                self._process.stdin.flush()
            except OSError:
                raise self._died() from None
            content = self._receive((stop - start) * format.row_bytes(width))
        return format.decode(np.frombuffer(content, np.uint8).reshape(stop - start, -1))

    def _receive(self, most_bytes: int) -> bytes:
        assert self._process is not None and self._process.stdout is not None
        head = self._process.stdout.read(_LENGTH_BYTES)
        size = int.from_bytes(head, "little")
        if len(head) < _LENGTH_BYTES or size > most_bytes:
            raise self._died()
        content = self._process.stdout.read(size)
        if len(content) < size:
            raise self._died()
        return content

    def _died(self) -> ThriftbitError:
        assert self._process is not None
        self._process.kill()
        status = self._process.wait()
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").split("\n")
        last = next((line for line in reversed(lines) if line.strip()), f"it ended with status {status}")
        return ThriftbitError(f"{self._where}: llama.cpp's converter failed: {shown(last.strip())}")

    def _refused(self, reason: str) -> ThriftbitError:
        if reason.startswith(_UNKNOWN):
            return ThriftbitError(
                f"{self._where}: this release of llama.cpp's converter cannot convert it ({shown(reason)}). "
                "Try another release: --converter PATH"
            )
        return ThriftbitError(f"{self._where}: llama.cpp's converter refuses this model: {shown(reason)}")


def _end(log: Any, folder: Path, processes: list[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
    log.close()
    remove_temporary_folder(folder)


def _environment(home: Path) -> dict[str, str]:
    """Return this program's environment without the variables that give access to anything."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.upper().startswith("HF_") and not any(word in name.upper() for word in _SECRETS)
    }
    return kept | {
        "HF_HOME": str(home),
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "PYTHONUTF8": "1",
    }


def _metadata_value(entry: Mapping[str, Any]) -> MetadataValue:
    kind, value = GGUFValueType(entry["type"]), entry["value"]
    if kind == GGUFValueType.ARRAY:
        of = GGUFValueType(entry["sub_type"]) if entry["sub_type"] >= 0 else _array_type(value)
        return [str(item) for item in value] if of == GGUFValueType.STRING else np.array(value, NUMBER_TYPES[of])
    if kind == GGUFValueType.STRING:
        return str(value)
    return bool(value) if kind == GGUFValueType.BOOL else NUMBER_TYPES[kind].type(value)


def _array_type(values: list[Any]) -> GGUFValueType:
    """Return the type that gguf's writer gives to an array if the converter names none."""
    first = values[0] if values else 0
    if isinstance(first, str):
        return GGUFValueType.STRING
    if isinstance(first, bool):
        return GGUFValueType.BOOL
    return GGUFValueType.FLOAT32 if isinstance(first, float) else GGUFValueType.INT32


def _dtype_of(checkpoint: Checkpoint) -> str:
    """Return the dtype of most of the checkpoint's weights."""
    sizes: dict[str, int] = {}
    for tensor in checkpoint.tensors.values():
        sizes[tensor.source_dtype] = sizes.get(tensor.source_dtype, 0) + math.prod(tensor.shape)
    return max(sizes, key=lambda name: sizes[name])
