"""llama.cpp's own tokenizer for a model, without the model.

Token ids have to be those that llama.cpp makes of a text, and only llama.cpp is sure to know them. Its tokenizer comes
with a loaded model, and loading gigabytes to split a text would be waste. But metadata alone describe the tokenizer. So
they are put into the smallest model that llama.cpp loads. That serves for a checkpoint that was never converted, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from gguf import Keys

from thriftbit.containers.gguf_values import Metadata
from thriftbit.containers.temporary_folder import temporary_folder
from thriftbit.errors import ThriftbitError
from thriftbit.runtime.engine import Engine
from thriftbit.runtime.smallest_model import write_smallest


class Tokenizer:
    """`with Tokenizer(model.metadata, model.source) as tokenizer: tokenizer.tokenize(["Hello"], add_special=True)`

    metadata: a model's, in GGUF's keys. name: of the model, for errors.
    Raises ThriftbitError for a model without a tokenizer, and where llama.cpp refuses it.
    """

    def __init__(self, metadata: Metadata, name: str) -> None:
        if not isinstance(metadata.get(Keys.Tokenizer.LIST), list):
            raise ThriftbitError(f"{name}: has no tokenizer ({Keys.Tokenizer.LIST} is missing)")
        kept = ("tokenizer.ggml.", Keys.General.NAME)  # some models' quirks llama.cpp knows by name
        self._metadata = {key: value for key, value in metadata.items() if key.startswith(kept)}
        self._name = name

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            folder = stack.enter_context(temporary_folder("tokenizer"))
            engine = Engine(write_smallest(folder / "vocabulary.gguf", self._metadata), context_tokens=64, threads=1)
            engine.name = self._name
            self._engine = stack.enter_context(engine)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    def tokenize(self, texts: Sequence[str], *, add_special: bool, parse_special: bool = False) -> list[list[int]]:
        """Return token ids of each text; see `Engine.tokenize`."""
        return self._engine.tokenize(texts, add_special=add_special, parse_special=parse_special)
