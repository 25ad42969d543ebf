"""llama.cpp's own tokenizer on a vocabulary that we wrote: the smallest model it loads around tokenizer metadata."""

from __future__ import annotations

from pathlib import Path

import cyllama.llama.llama_cpp as llama_cpp
import gguf
import numpy as np

from thriftbit.containers.entry import Entry
from thriftbit.containers.gguf_values import Metadata
from thriftbit.containers.gguf_writer import GGUFWriter, layout
from thriftbit.formats import format_named

WIDTH = 32

# One layer of Llama: llama.cpp asks for these before it looks at the vocabulary
MODEL_METADATA: Metadata = {
    "general.architecture": "llama",
    "llama.block_count": np.uint32(1),
    "llama.context_length": np.uint32(64),
    "llama.embedding_length": np.uint32(WIDTH),
    "llama.feed_forward_length": np.uint32(WIDTH),
    "llama.attention.head_count": np.uint32(1),
    "llama.attention.layer_norm_rms_epsilon": np.float32(1e-5),
}
NORMS = ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm")
MATRICES = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")


class Vocabulary:
    """llama.cpp reading `tokenizer`, the tokenizer.* keys of a GGUF that is written to `path`"""

    def __init__(self, path: Path, tokenizer: Metadata) -> None:
        llama_cpp.disable_logging()
        _write(path, tokenizer)
        settings = llama_cpp.LlamaModelParams()
        settings.n_gpu_layers = 0
        self._model = llama_cpp.LlamaModel(path_model=str(path), params=settings, verbose=False)
        self._vocabulary = self._model.get_vocab()

    def ids(self, text: str, *, ends: bool = True, special: bool = True) -> list[int]:
        """ends: with the beginning and end tokens that the metadata ask for. special: control tokens in the text are
        read as such"""
        return list(self._vocabulary.tokenize(text, ends, special))

    def stops(self) -> list[int]:
        """Return the tokens that end generation."""
        return [token for token in range(self._vocabulary.n_vocab) if self._vocabulary.is_eog(token)]


def _write(path: Path, tokenizer: Metadata) -> None:
    f32 = format_named("F32")
    rows = len(tokenizer[gguf.Keys.Tokenizer.LIST])  # type: ignore[arg-type]
    shapes: dict[str, tuple[int, ...]] = {"token_embd": (rows, WIDTH)}
    shapes |= dict.fromkeys(NORMS, (WIDTH,)) | {f"blk.0.{name}": (WIDTH, WIDTH) for name in MATRICES}
    entries = [Entry(f"{name}.weight", shape, f32) for name, shape in shapes.items()]
    with GGUFWriter(path, layout({**MODEL_METADATA, **tokenizer}, entries)) as writer:
        for entry in entries:
            writer.write(entry.name, [f32.encode(np.zeros((int(np.prod(entry.shape[:-1])), WIDTH), np.float32))])
