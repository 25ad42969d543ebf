"""Folders with tokenizers, as small as they can be, and what becomes of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from thriftbit.containers.gguf_values import MetadataValue
from thriftbit.sources.checkpoint import Checkpoint
from thriftbit.sources.tokenizers import tokenizer_metadata

JSON = dict[str, Any]

BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}


def added(token_id: int, text: str, *, special: bool = True) -> JSON:
    return {"id": token_id, "content": text, "special": special}


def byte_level(**changes: Any) -> JSON:
    """Return a tokenizer.json of five tokens, two of them added."""
    return {
        "added_tokens": [added(3, "<|end|>"), added(4, "<tool>", special=False)],
        "pre_tokenizer": BYTE_LEVEL,
        "post_processor": BYTE_LEVEL,
        "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [["a", "b"]]},
    } | changes


def pieces_json(**changes: Any) -> JSON:
    """Return a tokenizer.json in SentencePiece's manner: <unk> <s> </s>, 256 bytes, a b c ab abc."""
    letters = ["a", "b", "c", "ab", "abc"]
    vocabulary = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *letters]
    return {
        "added_tokens": [added(0, "<unk>"), added(1, "<s>"), added(2, "</s>")],
        "normalizer": {"type": "Prepend", "prepend": "▁"},
        "model": {
            "type": "BPE",
            "byte_fallback": True,
            "unk_token": "<unk>",
            "vocab": {text: row for row, text in enumerate(vocabulary)},
            "merges": [["a", "b"], ["ab", "c"]],
        },
    } | changes


def convert(folder: Path, rows: int, config: JSON | None = None, **files: JSON | str | bytes) -> dict[str, Any]:
    """files: by name without its extension; JSON unless given as text (.jinja) or bytes (.model)"""
    for name, content in files.items():
        if isinstance(content, bytes):
            (folder / f"{name}.model").write_bytes(content)
        elif isinstance(content, str):
            (folder / f"{name}.jinja").write_text(content)
        else:
            (folder / f"{name}.json").write_text(json.dumps(content))
    metadata: dict[str, MetadataValue] = tokenizer_metadata(Checkpoint(folder, config or {}, {}), rows)
    return metadata


def notes(folder: Path, rows: int, config: JSON | None = None, name: str = "") -> tuple[dict[str, Any], list[str]]:
    """Return what is written for the files that are in the folder already, and what is told."""
    told: list[str] = []
    metadata = tokenizer_metadata(Checkpoint(folder, config or {}, {}), rows, name, told.append)
    return metadata, told


END = {"eos_token": "<|end|>"}
