"""A model that is made to be timed: real layers of a size that no cache holds, all matrices in one format.

What a format's kernels do in a second cannot be computed: of two formats with the same bytes one may take 2.7 times as
long. So llama.cpp itself is timed, on a file like any other. Its weights are the demo model's, encoded in the format
and repeated until the shape is that of a larger model; formats that Thriftbit does not write have random codes. The
speed of arithmetic does not depend on what is multiplied. Layers are as many as the wanted size takes, so that every
format is timed on the same bytes.

Written without waiting for the disk and without the care that a user's file is written with: it lives for seconds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import BinaryIO

import numpy as np
from gguf import Keys

from thriftbit.containers.entry import Entry
from thriftbit.containers.gguf_values import Metadata
from thriftbit.containers.gguf_writer import layout
from thriftbit.errors import ThriftbitError
from thriftbit.formats import FORMATS, Format, format_named
from thriftbit.formats.format import ByteArray, FloatArray
from thriftbit.sources.model import Model
from thriftbit.sources.open_model import open_model

DEMO_MODEL = Path(__file__).parents[1] / "demo_model"
CONTEXT_TOKENS = 2048
MOST_LAYERS = 512
"""LLAMA_MAX_LAYERS of llama.cpp, which aborts beyond. A processor with 230 MB of last-level cache and more would have
such small layers in larger numbers; as many as are allowed are still more than its cache holds."""
_EMBEDDING, _SAMPLE = "token_embd.weight", "blk.0.ffn_gate.weight"
_SAMPLE_WEIGHTS = 128 << 10
_CHUNK_BYTES = 4 << 20

PROBED_FORMATS = tuple(FORMATS)


@dataclass(frozen=True)
class Shape:
    """Of a layer. width: of the hidden state. ffn: of the feed-forward part. heads, key_heads: 64 wide each."""

    width: int
    ffn: int
    heads: int
    key_heads: int

    @property
    def matrices(self) -> dict[str, tuple[int, int]]:
        keys = 64 * self.key_heads
        return {
            "attn_q": (self.width, self.width),
            "attn_k": (keys, self.width),
            "attn_v": (keys, self.width),
            "attn_output": (self.width, self.width),
            "ffn_gate": (self.ffn, self.width),
            "ffn_up": (self.ffn, self.width),
            "ffn_down": (self.width, self.ffn),
        }

    @property
    def layer_weights(self) -> int:
        return sum(rows * width for rows, width in self.matrices.values())


WIDE = Shape(2048, 6144, 32, 8)
"""As in a model of a billion parameters and more: reading weights is all that takes time."""
NARROW = Shape(512, 1536, 8, 4)
"""As in a model of a hundred million: what every layer costs beside its weights shows."""


@dataclass(frozen=True)
class ProbeModel:
    """layers: how many. decode_bytes: of the weights that are read for every token written. prefill_weights: that every
    token read is multiplied with (the last matrix is only for the last token). vocabulary_size: in tokens."""

    path: Path
    format: str
    layers: int
    decode_bytes: int
    prefill_weights: int
    vocabulary_size: int


def layers_for(format_name: str, size_bytes: int, shape: Shape = WIDE) -> int:
    """Return how many layers have at least `size_bytes` in that format, or as many as llama.cpp takes."""
    wanted = math.ceil(size_bytes * 8 / (FORMATS[format_name].bits_per_weight * shape.layer_weights))
    return min(max(1, wanted), MOST_LAYERS)


def write_probe_model(path: Path, format_name: str, layers: int, shape: Shape = WIDE) -> ProbeModel:
    """path: of the file. Raises ThriftbitError if it cannot be written."""
    demo = _demo_model()
    entries = _entries(FORMATS[format_name], layers, shape, _vocabulary_size(demo))
    plan = layout(_metadata(demo, layers, shape), entries)
    try:
        with path.open("wb") as file:
            file.write(plan.header)
            for entry, offset in zip(plan.entries, plan.offsets_bytes, strict=True):
                file.seek(offset)
                _write_repeated(file, entry)
            file.truncate(plan.file_size_bytes)
    except OSError as error:
        raise ThriftbitError(f"{path}: cannot be written: {error.strerror}") from None
    read = [entry for entry in entries if len(entry.shape) == 2 and entry.name != _EMBEDDING]
    return ProbeModel(
        path=path,
        format=format_name,
        layers=layers,
        decode_bytes=sum(entry.size_bytes for entry in read),
        prefill_weights=layers * shape.layer_weights,
        vocabulary_size=_vocabulary_size(demo),
    )


def _entries(format: Format, layers: int, shape: Shape, vocabulary_size: int) -> list[Entry]:
    f32 = format_named("F32")
    entries = [
        Entry(_EMBEDDING, (vocabulary_size, shape.width), format_named("Q8_0")),
        Entry("output_norm.weight", (shape.width,), f32),
        Entry("output.weight", (vocabulary_size, shape.width), format),
    ]
    for layer in range(layers):
        entries += [Entry(f"blk.{layer}.{name}.weight", (shape.width,), f32) for name in ("attn_norm", "ffn_norm")]
        entries += [Entry(f"blk.{layer}.{name}.weight", size, format) for name, size in shape.matrices.items()]
    return entries


def _write_repeated(file: BinaryIO, entry: Entry) -> None:
    is_norm = len(entry.shape) == 1
    sample = np.ones(1, np.float32).view(np.uint8) if is_norm else _sample_blocks(entry.format.name)
    chunk = np.tile(sample, max(1, min(_CHUNK_BYTES, entry.size_bytes) // sample.size)).data
    left_bytes = entry.size_bytes
    while left_bytes:
        left_bytes -= file.write(chunk[:left_bytes])


@cache
def _demo_model() -> Model:
    return open_model(DEMO_MODEL, offline=True)


def _vocabulary_size(demo: Model) -> int:
    vocabulary = demo.metadata[Keys.Tokenizer.LIST]
    assert isinstance(vocabulary, list)
    return len(vocabulary)


@cache
def _sample_blocks(format_name: str) -> ByteArray:
    """Return (bytes,): blocks of the format, which may follow one another in a matrix of any width that they divide."""
    return FORMATS[format_name].encode(_sample()).reshape(-1)


@cache
def _sample() -> FloatArray:
    """Return rows of one of the demo model's matrices."""
    (tensor,) = (tensor for tensor in _demo_model().tensors if tensor.name == _SAMPLE)
    return tensor.load(0, min(tensor.rows, _SAMPLE_WEIGHTS // tensor.width))


def _metadata(demo: Model, layers: int, shape: Shape) -> Metadata:
    return {
        **{key: value for key, value in demo.metadata.items() if key.startswith("tokenizer.")},
        "general.architecture": "llama",
        "llama.block_count": np.uint32(layers),
        "llama.context_length": np.uint32(CONTEXT_TOKENS),
        "llama.embedding_length": np.uint32(shape.width),
        "llama.feed_forward_length": np.uint32(shape.ffn),
        "llama.attention.head_count": np.uint32(shape.heads),
        "llama.attention.head_count_kv": np.uint32(shape.key_heads),
        "llama.attention.layer_norm_rms_epsilon": np.float32(1e-5),
    }
