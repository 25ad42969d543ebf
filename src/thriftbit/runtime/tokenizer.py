"""llama.cpp's own tokenizer for a model, without the model.

Token ids have to be those that llama.cpp makes of a text, and only llama.cpp is sure to know them. Its tokenizer comes
with a loaded model, and loading gigabytes to split a text would be waste; but it is described by metadata alone. So
the metadata are put into the smallest model that llama.cpp loads (one layer of zeros, a few MB for a vocabulary of
256,000), which serves as well for a checkpoint that was never converted.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from gguf import Keys

from thriftbit.containers.gguf_values import Metadata
from thriftbit.containers.gguf_writer import Entry, GGUFWriter, layout
from thriftbit.containers.temporary_folder import temporary_folder
from thriftbit.errors import ThriftbitError
from thriftbit.formats import format_named
from thriftbit.runtime.engine import Engine

_WIDTH = 32
_METADATA: Metadata = {
    "general.architecture": "llama",
    "llama.block_count": np.uint32(1),
    "llama.context_length": np.uint32(64),
    "llama.embedding_length": np.uint32(_WIDTH),
    "llama.feed_forward_length": np.uint32(_WIDTH),
    "llama.attention.head_count": np.uint32(1),
    "llama.attention.layer_norm_rms_epsilon": np.float32(1e-5),
}
_NORMS = ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm")
_MATRICES = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")


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
            engine = Engine(_write(folder / "vocabulary.gguf", self._metadata), context_tokens=64, threads=1)
            engine.name = self._name
            self._engine = stack.enter_context(engine)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    def tokenize(self, texts: Sequence[str], *, add_special: bool, parse_special: bool = False) -> list[list[int]]:
        """-> token ids of each text; see `Engine.tokenize`"""
        return self._engine.tokenize(texts, add_special=add_special, parse_special=parse_special)


def _write(path: Path, tokenizer: Metadata) -> Path:
    f32, small = format_named("F32"), format_named("Q4_0")
    tokens = tokenizer[Keys.Tokenizer.LIST]
    assert isinstance(tokens, list)
    entries = [Entry("token_embd.weight", (len(tokens), _WIDTH), small)]
    entries += [Entry(f"{name}.weight", (_WIDTH,), f32) for name in _NORMS]
    entries += [Entry(f"blk.0.{name}.weight", (_WIDTH, _WIDTH), small) for name in _MATRICES]
    with GGUFWriter(path, layout({**_METADATA, **tokenizer}, entries)) as writer:
        for entry in entries:
            writer.write(entry.name, [np.zeros(entry.size_bytes, np.uint8)])  # blocks of nothing but zeros are zeros
    return path
