"""A Hub in one repository: the few endpoints that huggingface_hub uses, on an HTTP server on this machine."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPOSITORY = "tester/tiny-model"
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


def repository_files() -> dict[str, bytes]:
    weight_map = {"a": SHARDS[0], "b": SHARDS[1]}
    return {
        "config.json": b'{"model_type": "llama"}',
        "model.safetensors.index.json": json.dumps({"weight_map": weight_map}).encode(),
        SHARDS[0]: b"first" * 40_000,
        SHARDS[1]: b"second" * 40_000,
        "tokenizer.json": b"{}",
        "tokenizer.model": b"sentencepiece",
        "merges.txt": b"a b",
        "chat_template.jinja": b"{{ messages }}",
        "README.md": b"---\nlicense: mit\n---\n",
        # what is not needed
        "pytorch_model.bin": b"pickle",
        "tiny.Q4_K_M.gguf": b"GGUF",
        "consolidated.safetensors": b"the same weights again",
        "original/params.json": b"{}",
        ".gitattributes": b"",
    }


NEEDED = set(repository_files()) - {
    "pytorch_model.bin", "tiny.Q4_K_M.gguf", "consolidated.safetensors", "original/params.json", ".gitattributes",
}  # fmt: skip


@dataclass
class FakeHub:
    """The few endpoints that huggingface_hub uses, and what went over them."""

    files: dict[str, bytes] = field(default_factory=repository_files)
    refusal: tuple[int, str] | None = None  # status and X-Error-Code for everything
    cut_after: int | None = None  # bytes of a weight file after which the connection drops
    served: list[tuple[str, int, int]] = field(default_factory=list)  # file, first byte, bytes sent
    url: str = ""

    def handler(self) -> type[BaseHTTPRequestHandler]:
        state = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                self.answer(with_body=False)

            def do_GET(self) -> None:
                self.answer(with_body=True)

            def answer(self, with_body: bool) -> None:
                path = self.path.partition("?")[0]
                if state.refusal:
                    return self.send(state.refusal[0], b"", {"X-Error-Code": state.refusal[1]}, with_body)
                if path.startswith(f"/api/models/{REPOSITORY}/tree/"):
                    return self.send(200, json.dumps([describe(*item) for item in state.files.items()]).encode())
                if path.startswith(f"/api/models/{REPOSITORY}"):
                    if path.endswith("/revision/absent"):
                        return self.send(404, b"", {"X-Error-Code": "RevisionNotFound"})
                    siblings = [describe(*item) | {"rfilename": item[0]} for item in state.files.items()]
                    body = {"id": REPOSITORY, "sha": COMMIT, "siblings": siblings, "private": False, "tags": []}
                    return self.send(200, json.dumps(body).encode())
                prefix = f"/{REPOSITORY}/resolve/{COMMIT}/"
                if path.startswith(prefix) and path.removeprefix(prefix) in state.files:
                    return self.send_file(path.removeprefix(prefix), with_body)
                return self.send(404, b"", {"X-Error-Code": "RepoNotFound"}, with_body)

            def send_file(self, name: str, with_body: bool) -> None:
                content = state.files[name]
                start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
                headers = {"ETag": f'"{etag(name, content)}"', "X-Repo-Commit": COMMIT}
                if start:
                    headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
                body = content[start:]
                if with_body:
                    if state.cut_after is not None and name.endswith((".safetensors", ".gguf")):
                        body = body[: state.cut_after]
                        self.close_connection = True
                    state.served.append((name, start, len(body)))
                self.send(206 if start else 200, body, headers, with_body, length=len(content) - start)

            def send(
                self,
                status: int,
                body: bytes,
                headers: dict[str, str] | None = None,
                with_body: bool = True,
                length: int | None = None,
            ) -> None:
                self.send_response(status)
                for key, value in (headers or {}).items():
                    self.send_header(key, value)
                self.send_header("Content-Length", str(len(body) if length is None else length))
                self.end_headers()
                if with_body:
                    self.wfile.write(body)

            def log_message(self, format: str, *arguments: object) -> None:
                pass

        return Handler


def etag(name: str, content: bytes) -> str:
    return hashlib.sha256(content).hexdigest() if is_large(name) else hashlib.sha1(content).hexdigest()


def is_large(name: str) -> bool:
    return name.endswith((".safetensors", ".bin", ".gguf"))


def describe(name: str, content: bytes) -> dict[str, object]:
    description: dict[str, object] = {
        "type": "file", "path": name, "size": len(content), "oid": etag(name, content), "blobId": etag(name, content),
    }  # fmt: skip
    if is_large(name):
        sha256 = etag(name, content)
        description["lfs"] = {"oid": sha256, "sha256": sha256, "size": len(content), "pointerSize": 130}
    return description
