"""Ollama's models: manifests/HOST/OWNER/MODEL/TAG name blobs/sha256-… that hold the content.

A manifest is JSON with layers; the one of type "…image.model" is a GGUF file under the hash of its content. Tags that
share such a layer are one model with several names. Layout: https://github.com/ollama/ollama, server/manifest.go."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from thriftbit.errors import ThriftbitError
from thriftbit.library.candidate import Candidate
from thriftbit.sources.json_object import read_json_object

PLACE = "Ollama"
_HOST, _OWNER = "registry.ollama.ai", "library"
_MODEL, _TENSOR = "application/vnd.ollama.image.model", "application/vnd.ollama.image.tensor"
_DIGEST = re.compile(r"sha256[:-](?P<hash>[0-9a-f]{64})")
_BY_TENSORS = "is stored tensor by tensor, which is not read here; `ollama show` tells what it is"


def ollama_candidates(folder: Path) -> Iterator[Candidate]:
    """Yield Ollama's models. folder: contains manifests/ and blobs/."""
    by_file: dict[Path, Candidate] = {}
    for manifest in sorted(_manifests(folder / "manifests")):
        found = _candidate(folder, manifest)
        if found is None:
            continue
        known = by_file.get(found.files[0])
        by_file[found.files[0]] = replace(known, aliases=(*known.aliases, found.name)) if known else found
    yield from by_file.values()


def _manifests(folder: Path) -> Iterator[Path]:
    for root, _, names in os.walk(folder):
        if len(Path(root).relative_to(folder).parts) >= 2:
            yield from (Path(root, name) for name in names if not name.startswith("."))


def _candidate(folder: Path, manifest: Path) -> Candidate | None:
    """Return the model of a manifest; None for one without a model, such as an embedding's adapter alone."""
    name = _name(manifest.relative_to(folder / "manifests").parts)
    try:
        layers = read_json_object(manifest).get("layers")
    except ThriftbitError as error:
        return Candidate(name, PLACE, (manifest,), problem=str(error))
    layers = [layer for layer in layers if isinstance(layer, dict)] if isinstance(layers, list) else []
    model = next((layer for layer in layers if layer.get("mediaType") == _MODEL), None)
    if model is None:
        by_tensor = any(layer.get("mediaType") == _TENSOR for layer in layers)
        return Candidate(name, PLACE, (manifest,), problem=f"{name} {_BY_TENSORS}") if by_tensor else None
    digest = _DIGEST.fullmatch(str(model.get("digest")))
    if digest is None:
        return Candidate(name, PLACE, (manifest,), problem=f"{manifest} names no blob by its SHA-256")
    return Candidate(name, PLACE, (_blob(folder, digest["hash"]),), sha256=digest["hash"])


def _blob(folder: Path, hash: str) -> Path:
    """Return the path of the content. Before version 0.1.30, its name had a colon."""
    path, older = folder / "blobs" / f"sha256-{hash}", folder / "blobs" / f"sha256:{hash}"
    return older if older.exists() and not path.exists() else path


def _name(parts: tuple[Any, ...]) -> str:
    """(host, …, model, tag) -> "llama3.2:3b", "owner/model:tag", "hf.co/owner/model:tag" """
    *before, tag = parts
    if before[0] == _HOST:
        before = before[1:]
        if before[0] == _OWNER:
            before = before[1:]
    return f"{'/'.join(before)}:{tag}"
