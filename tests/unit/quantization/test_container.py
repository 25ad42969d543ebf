"""The loop knows no container: another one than GGUF is a function."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

from thriftbit.containers.gguf_reader import read_gguf
from thriftbit.formats.format import ByteArray
from thriftbit.quantization.container import Making
from thriftbit.quantization.plan import Plan, make_plan
from thriftbit.quantization.quantize import quantize
from thriftbit.sources.model import Model


class ZipOfBlocks:
    """A container of other names and another arrangement: each tensor is a file of a ZIP archive."""

    def __init__(self, path: Path, model: Model, plan: Plan, making: Making, *, force: bool) -> None:
        self.path, self.size_bytes = path, plan.weights_bytes(model)
        self._comment = f"{making.effort}, {plan.preset}".encode()

    def __enter__(self) -> Self:
        self._archive = zipfile.ZipFile(self.path, "w")
        self._archive.comment = self._comment
        return self

    def write(self, name: str, pieces: Iterable[ByteArray]) -> None:
        self._archive.writestr(f"{name}.blocks", b"".join(piece.tobytes() for piece in pieces))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._archive.close()


def test_the_blocks_are_the_same_in_any_container(model: Model, tmp_path: Path) -> None:
    plan = make_plan(model, "Q4_K_M")
    result = quantize(model, plan, tmp_path / "model.zip", container=ZipOfBlocks)
    file = read_gguf(quantize(model, plan, tmp_path / "model.gguf").path)
    with zipfile.ZipFile(result.path) as archive:
        assert archive.comment == b"plain, Q4_K_M"
        assert [info.filename for info in archive.infolist()] == [f"{t.name}.blocks" for t in model.tensors]
        assert result.size_bytes == sum(info.file_size for info in archive.infolist())
        for info in file.tensors:
            rows = math.prod(info.shape[:-1])
            assert archive.read(f"{info.name}.blocks") == file.read(info, 0, rows).tobytes()
