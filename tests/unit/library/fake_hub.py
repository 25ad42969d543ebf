"""A Hub with several repositories, as far as searching it goes: the routes of huggingface.co, on this machine."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit


@dataclass
class Repository:
    """files: name -> size in bytes, or the file itself. gguf, safetensors: what the Hub knows of the weights."""

    files: Mapping[str, int | Path]
    gguf: Mapping[str, Any] | None = None
    safetensors: Mapping[str, int] | None = None
    downloads: int = 0
    gated: str | bool = False


@dataclass
class FakeHub:
    """refusal: status and headers for everything. broken: repositories whose own page fails. served: (file, bytes)."""

    repositories: dict[str, Repository] = field(default_factory=dict)
    refusal: tuple[int, Mapping[str, str]] | None = None
    broken: tuple[str, ...] = ()
    garbage: bytes | None = None
    asked: list[str] = field(default_factory=list)
    served: list[tuple[str, int]] = field(default_factory=list)
    url: str = ""

    def search(self, words: str, kind: str, limit: int) -> list[dict[str, Any]]:
        found = [
            (name, repository)
            for name, repository in self.repositories.items()
            if all(word.lower() in name.lower() for word in words.split())
            and (repository.gguf if kind == "gguf" else repository.safetensors) is not None
        ]
        found.sort(key=lambda item: -item[1].downloads)
        return [self._information(*item) for item in found[:limit]]

    def _information(self, name: str, repository: Repository) -> dict[str, Any]:
        information: dict[str, Any] = {
            "_id": name, "id": name, "modelId": name, "downloads": repository.downloads, "gated": repository.gated,
        }  # fmt: skip
        if repository.gguf is not None:
            information["gguf"] = dict(repository.gguf)
        if repository.safetensors is not None:
            total = sum(repository.safetensors.values())
            information["safetensors"] = {"parameters": dict(repository.safetensors), "total": total}
        return information

    def handler(self) -> type[BaseHTTPRequestHandler]:
        state = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                state.asked.append(self.path)
                address = urlsplit(self.path)
                query = {key: values[0] for key, values in parse_qs(address.query).items()}
                if state.refusal:
                    return self.send(state.refusal[0], b"", state.refusal[1])
                if address.path == "/api/models":
                    found = state.search(query["search"], query["filter"], int(query["limit"]))
                    return self.send(200, state.garbage or json.dumps(found).encode())
                if match := re.fullmatch(r"/api/models/([\w.-]+/[\w.-]+)(?:/revision/main)?", address.path):
                    return self.send_information(match[1])
                if match := re.fullmatch(r"/([\w.-]+/[\w.-]+)/resolve/main/(.+)", unquote(address.path)):
                    return self.send_file(*match.groups())
                return self.send(404, b"")

            def send_information(self, name: str) -> None:
                repository = state.repositories[name]
                if name in state.broken:
                    return self.send(500, b"")
                siblings = [
                    {"rfilename": file, "size": size if isinstance(size, int) else size.stat().st_size}
                    for file, size in repository.files.items()
                ]
                body = state._information(name, repository) | {"siblings": siblings}
                return self.send(200, json.dumps(body).encode())

            def send_file(self, name: str, file: str) -> None:
                path = state.repositories[name].files[file]
                assert isinstance(path, Path)
                if state.repositories[name].gated:
                    return self.send(403, b"", {"X-Error-Code": "GatedRepo"})
                size = path.stat().st_size
                first, last = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers["Range"]).groups()  # type: ignore[union-attr]
                start, stop = int(first), min(size, int(last) + 1 if last else size)
                with path.open("rb") as stream:
                    stream.seek(start)
                    body = stream.read(stop - start)
                state.served.append((file, len(body)))
                return self.send(206, body, {"Content-Range": f"bytes {start}-{stop - 1}/{size}"})

            def send(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
                self.send_response(status)
                for key, value in (headers or {}).items():
                    self.send_header(key, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *arguments: object) -> None:
                pass

        return Handler
