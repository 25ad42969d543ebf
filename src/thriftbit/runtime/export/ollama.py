"""Ollama: manifests/registry.ollama.ai/NAMESPACE/MODEL/TAG, JSON that names blobs/sha256-HASH by their roles.

The weights are one blob, the rest are small ones of our own: config (what `ollama list` shows), template, params (stop
tokens, and how to sample where the file says), license. Read from Ollama's source: manifest/manifest.go,
server/create.go, types/model/config.go and name.go.

About the template. Only `ollama create` detects one; a running Ollama takes what the manifest names. Without one,
versions since 0.30 let llama.cpp run the file's own Jinja, and versions before send the bare prompt, which a chat model
does not understand. So one is written wherever the file's can be expressed in Go's language (`chat_format.py`); newer
versions still prefer the file's own where that can do more (tools, reasoning). A file without a chat template is a
model that continues text, and gets the template that does that.

Refused, beside what llama.cpp refuses: models in several files, since a manifest has one layer for the weights and
Ollama opens no other.

Left out: `ollama create`, which copies the whole file twice; adapters and projectors; renderers and parsers, which are
Ollama's own code for a few families and change with its versions.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thriftbit.errors import ThriftbitError, UsageError, shown
from thriftbit.progress import Progress
from thriftbit.runtime.export.chat_format import chat_format
from thriftbit.runtime.export.exported_file import ExportedFile, as_name
from thriftbit.runtime.export.transaction import (
    CHUNK_BYTES,
    THERE_ALREADY,
    Destination,
    Placed,
    Transaction,
)
from thriftbit.strangers import quoted

_HOST, _NAMESPACE, _TAG = "registry.ollama.ai", "library", "latest"
_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_CONFIG = "application/vnd.docker.container.image.v1+json"
_LAYER = "application/vnd.ollama.image."
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,79}")
_NAMESPACE_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_\-]{0,79}")
_SERVICE = Path("/usr/share/ollama/.ollama/models")


@dataclass(frozen=True)
class _Name:
    namespace: str
    model: str
    tag: str

    def __str__(self) -> str:
        before = "" if self.namespace == _NAMESPACE else f"{self.namespace}/"
        return f"{before}{self.model}:{self.tag}"


class Ollama:
    program = "Ollama"

    def __init__(self, exported: ExportedFile, name: str | None, folder: Path | None, progress: Progress) -> None:
        if len(exported.files) > 1:
            raise ThriftbitError(
                f"{exported.path} is one of {len(exported.files)} parts, and Ollama opens a model from one file only. "
                "Join them first: llama-gguf-split --merge FIRST-PART WHOLE.gguf"
            )
        self._exported, self._progress = exported, progress
        self._name = _parse(name) if name is not None else _default_name(exported)
        usual = models_folder(os.environ, Path.home())
        self._folder = folder or usual
        self._manifest = self._find_manifest()
        self._format = chat_format(exported)
        self.destination = Destination(
            name=str(self._name),
            folder=self._folder,
            marker=self._manifest,
            command=f"ollama run {quoted(str(self._name))}",
            notes=tuple(self._notes(usual)),
            details={"template": self._format.template, "parameters": self._format.parameters},
        )

    def taken(self) -> Sequence[Path]:
        return [self._manifest] if self._manifest.exists() else []

    def register(self, transaction: Transaction, replace: bool) -> list[Placed]:
        blobs = self._folder / "blobs"
        transaction.folder(blobs)
        transaction.folder(self._manifest.parent)
        source = self._exported.files[0]
        before = _state(source)
        weights = self._place_weights(transaction, source, blobs / _blob_name(self._hash(source)))
        if _state(source) != before:
            raise ThriftbitError(f"{source} changed while it was exported; try again when it is complete")
        placed, layers = [weights], [self._layer("model", weights)]
        for role, content in self._small_layers():
            placed.append(self._write_blob(transaction, blobs, content))
            layers.append(self._layer(role, placed[-1]))
        config = self._write_blob(transaction, blobs, _json(self._config([each["digest"] for each in layers])))
        manifest = {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": {**self._layer("", config), "mediaType": _CONFIG},
            "layers": layers,
        }
        content = _json(manifest)
        if self._manifest.exists() and self._manifest.read_bytes() == content:
            return [*placed, config, Placed(self._manifest, len(content), THERE_ALREADY)]
        return [*placed, config, transaction.write(self._manifest, content, replace=replace)]

    def _place_weights(self, transaction: Transaction, source: Path, blob: Path) -> Placed:
        size_bytes = source.stat().st_size
        if blob.is_file() and blob.stat().st_size == size_bytes:
            return Placed(blob, size_bytes, THERE_ALREADY)
        return transaction.place(source, blob, replace=True)  # of this name, anything else is damaged

    def _small_layers(self) -> list[tuple[str, bytes]]:
        """Return (role, content) of what is beside the weights."""
        layers = [("template", self._format.template.encode())] if self._format.template else []
        if self._format.parameters:
            layers.append(("params", _json(self._format.parameters)))
        licence = _licence(self._exported)
        return [*layers, ("license", licence.encode(errors="replace"))] if licence else layers

    def _config(self, digests: list[str]) -> dict[str, Any]:
        content = self._exported.content
        return {
            "model_format": "gguf",
            "model_family": content.architecture,
            "model_families": [content.architecture],
            "model_type": human_number(content.parameters or 0),
            "file_type": content.declared or "unknown",
            "architecture": "amd64",  # what Ollama writes on every machine
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": digests},
        }

    def _layer(self, role: str, placed: Placed) -> dict[str, Any]:
        digest = placed.path.name.replace("-", ":", 1)
        return {"mediaType": _LAYER + role, "digest": digest, "size": placed.size_bytes}

    def _write_blob(self, transaction: Transaction, blobs: Path, content: bytes) -> Placed:
        path = blobs / _blob_name(hashlib.sha256(content).hexdigest())
        if path.exists() and path.read_bytes() == content:
            return Placed(path, len(content), THERE_ALREADY)
        return transaction.write(path, content, replace=True)  # of this name, anything else is damaged

    def _hash(self, path: Path) -> str:
        digest, done_bytes = hashlib.sha256(), 0
        total_bytes = max(1, path.stat().st_size)
        with path.open("rb", buffering=0) as file:
            while chunk := file.read(CHUNK_BYTES):
                digest.update(chunk)
                done_bytes += len(chunk)
                self._progress(f"reading {path.name}", min(1.0, done_bytes / total_bytes))
        return digest.hexdigest()

    def _find_manifest(self) -> Path:
        """Return where the manifest is to be; Ollama takes names for the same whatever their case, and so do we."""
        path = self._folder / "manifests" / _HOST
        for part in (self._name.namespace, self._name.model, self._name.tag):
            try:
                there = [each.name for each in path.iterdir() if each.name.lower() == part.lower()]
            except OSError:
                there = []
            path = path / (part if part in there or not there else there[0])
        return path

    def _notes(self, usual: Path) -> list[str]:
        notes = [self._format.note] if self._format.note else []
        if self._folder != usual:
            notes.append(f"Ollama finds it if it is started with OLLAMA_MODELS={quoted(self._folder)}")
        elif self._folder == _SERVICE and not self._exported.files[0].stat().st_mode & stat.S_IROTH:
            notes.append(
                f"Ollama's service is another user, who may not read it yet: chmod o+r {quoted(self._exported.path)}"
            )
        return notes


def models_folder(environment: Mapping[str, str], home: Path) -> Path:
    """Return where Ollama keeps models: OLLAMA_MODELS, the user's folder, or the service's folder on Linux if only that
    one is there."""
    given = environment.get("OLLAMA_MODELS")
    if given:
        return Path(given)
    own = home / ".ollama" / "models"
    return _SERVICE if not own.is_dir() and _SERVICE.is_dir() else own


def human_number(count: int) -> str:
    """Return "1.5B", "134.52M", "8B": as Ollama's format.HumanNumber writes a number of parameters."""
    for limit, unit, digits in ((10**9, "B", 1), (10**6, "M", 2)):
        if count >= limit:
            return f"{count // limit}{unit}" if count % limit == 0 else f"{count / limit:.{digits}f}{unit}"
    return f"{count / 1000:.0f}K" if count >= 1000 else str(count)


def _default_name(exported: ExportedFile) -> _Name:
    return _Name(_NAMESPACE, exported.model_name.lower(), as_name(exported.quantization).lower() or _TAG)


def _parse(name: str) -> _Name:
    before, slash, rest = name.rpartition("/")
    model, colon, tag = rest.partition(":")
    parsed = _Name(before if slash else _NAMESPACE, model, tag if colon else _TAG)
    good = _NAMESPACE_PART.fullmatch(parsed.namespace) and _PART.fullmatch(parsed.model) and _PART.fullmatch(parsed.tag)
    if not good:
        raise UsageError(
            f"--name {shown(name)}: Ollama's models are named NAME or NAME:TAG, with OWNER/ before it if you like, "
            'each of letters, digits, "_", "-" and ".", 80 at most'
        )
    return parsed


def _blob_name(hash: str) -> str:
    return f"sha256-{hash}"


def _state(path: Path) -> tuple[int, int, int]:
    state = path.stat()
    return state[stat.ST_SIZE], state.st_mtime_ns, state.st_ino


def _json(document: dict[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode(errors="replace") + b"\n"


def _licence(exported: ExportedFile) -> str:
    lines = [exported.text(f"general.license{key}") for key in ("", ".name", ".link")]
    return "\n".join(line for line in lines if line)[:10_000]
