"""Models that look real and take no space: whole headers, and weights that are holes in a sparse file."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
from gguf import GGMLQuantizationType, LlamaFileType

UINT32, STRING, ARRAY = 4, 8, 9
FFN_SHARE = 3


def write_gguf(
    path: Path,
    level: str = "Q4_K_M",
    *,
    layer_type: str = "Q4_K",
    outer_type: str = "Q6_K",
    layers: int = 4,
    width: int = 1024,
    tokens: int = 2000,
    metadata: Mapping[str, str | int] | None = None,
    seed: bytes = b"",
) -> Path:
    """Return a Llama whose layers are all of `layer_type`, and whose header says it is of this level; level "": it says
    nothing. seed: bytes of the first weights, so that files can differ."""
    number = {each.name.removeprefix("MOSTLY_").removeprefix("ALL_"): int(each) for each in LlamaFileType}.get(level)
    keys: dict[str, Any] = {
        "general.architecture": "llama",
        "general.name": "Test Llama",
        "llama.block_count": layers,
        "llama.context_length": 8192,
        "llama.embedding_length": width,
        "llama.feed_forward_length": width * FFN_SHARE,
        "llama.attention.head_count": width // 64,
        "llama.attention.head_count_kv": max(1, width // 256),
        **({"general.file_type": number} if number is not None else {}),
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": [f"t{index}" for index in range(tokens)],
        **(metadata or {}),
    }
    tensors = {"token_embd.weight": (tokens, width, outer_type), "output.weight": (tokens, width, outer_type)}
    for layer in range(layers):
        for name, rows, columns in (
            ("attn_q", width, width),
            ("attn_output", width, width),
            ("ffn_up", width * FFN_SHARE, width),
            ("ffn_down", width, width * FFN_SHARE),
        ):
            tensors[f"blk.{layer}.{name}.weight"] = (rows, columns, layer_type)
        tensors[f"blk.{layer}.attn_norm.weight"] = (1, width, "F32")
    return write_raw_gguf(path, keys, tensors, seed)


def write_raw_gguf(
    path: Path, keys: Mapping[str, Any], tensors: Mapping[str, tuple[int, int, str]], seed: bytes = b""
) -> Path:
    """tensors: name -> rows, columns and GGML type"""
    infos, offset = [], 0
    for name, (rows, columns, type_name) in tensors.items():
        kind = GGMLQuantizationType[type_name]
        block_size, block_bytes = gguf.GGML_QUANT_SIZES[kind]
        shape = (columns,) if rows == 1 else (columns, rows)
        infos.append(_text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset))
        offset += -(-(rows * columns // block_size * block_bytes) // 32) * 32
    header = b"GGUF" + struct.pack("<IQQ", 3, len(infos), len(keys))
    header += b"".join(_text(key) + _value(value) for key, value in keys.items()) + b"".join(infos)
    header += bytes(-len(header) % 32)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(header + seed)
        file.truncate(len(header) + offset)
    return path


def write_checkpoint(
    folder: Path,
    config: Mapping[str, Any],
    tensors: Mapping[str, tuple[str, tuple[int, ...]]],
    shards: int = 1,
) -> Path:
    """tensors: name -> dtype and shape. Returns the folder, with its weights as holes."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    names = [f"model-{n:05d}-of-{shards:05d}.safetensors" for n in range(1, shards + 1)]
    names = ["model.safetensors"] if shards == 1 else names
    weight_map = {name: names[index % shards] for index, name in enumerate(tensors)}
    if shards > 1:
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    for file in names:
        header: dict[str, Any] = {}
        offset = 0
        for name, (dtype, shape) in tensors.items():
            if weight_map[name] == file:
                size = int(_prod(shape) * _DTYPE_BYTES[dtype])
                header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, offset + size]}
                offset += size
        raw = json.dumps(header).encode()
        with (folder / file).open("wb") as stream:
            stream.write(struct.pack("<Q", len(raw)) + raw)
            stream.truncate(8 + len(raw) + offset)
    return folder


def into_hub_cache(cache: Path, repository: str, files: Mapping[str, Path | bytes], commit: str = "c" * 40) -> Path:
    """Return the snapshot, which links to blobs under the hash of their content, as huggingface_hub lays it out."""
    folder = cache / f"models--{repository.replace('/', '--')}"
    for name, content in files.items():
        data = content.read_bytes() if isinstance(content, Path) else content
        blob = folder / "blobs" / hashlib.sha256(data).hexdigest()
        blob.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(data)
        link = folder / "snapshots" / commit / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    (folder / "refs").mkdir(parents=True, exist_ok=True)
    (folder / "refs" / "main").write_text(commit)
    return folder / "snapshots" / commit


def into_ollama(folder: Path, name: str, content: Path, host: str = "registry.ollama.ai") -> Path:
    """name: "library/llama3.2:3b". Returns the blob."""
    digest = hashlib.sha256(content.read_bytes()).hexdigest()
    blob = folder / "blobs" / f"sha256-{digest}"
    blob.parent.mkdir(parents=True, exist_ok=True)
    blob.write_bytes(content.read_bytes())
    model, _, tag = name.partition(":")
    manifest = folder / "manifests" / host / model / tag
    manifest.parent.mkdir(parents=True, exist_ok=True)
    layers = [
        {"mediaType": "application/vnd.ollama.image.model", "digest": f"sha256:{digest}", "size": blob.stat().st_size},
        {"mediaType": "application/vnd.ollama.image.template", "digest": f"sha256:{'0' * 64}", "size": 10},
    ]
    manifest.write_text(json.dumps({"schemaVersion": 2, "layers": layers}))
    return blob


_DTYPE_BYTES = {"F32": 4, "F16": 2, "BF16": 2, "I32": 4, "U32": 4, "U8": 1, "I8": 1, "F8_E4M3": 1, "I16": 2}


def _prod(shape: tuple[int, ...]) -> int:
    product = 1
    for size in shape:
        product *= size
    return product


def _text(value: str) -> bytes:
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def _value(value: Any) -> bytes:
    if isinstance(value, str):
        return struct.pack("<I", STRING) + _text(value)
    if isinstance(value, list):
        return struct.pack("<IIQ", ARRAY, STRING, len(value)) + b"".join(map(_text, value))
    return struct.pack("<II", UINT32, value)
