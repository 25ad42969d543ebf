"""The user's Hub token goes to the Hub's endpoint and to nobody else, whatever an address looks like."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub import constants
from huggingface_hub.hf_api import RepoSibling

from thriftbit.errors import ThriftbitError
from thriftbit.library.hub_search import search_hub
from thriftbit.sources import hub
from thriftbit.sources.hub_headers import headers_for
from thriftbit.sources.remote import open_outline

TOKEN = "hf_SECRETofTheUser"
HUB = "https://huggingface.co"


class Server:
    """An HTTP server on this machine. answers: by path, the status, headers and body. seen: the requests' headers."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, dict[str, str], bytes]] = {}
        self.seen: list[dict[str, str]] = []
        self.url = ""

    def token_was_sent(self) -> bool:
        assert self.seen
        return any(TOKEN in value for headers in self.seen for value in headers.values())


@contextmanager
def serving() -> Iterator[Server]:
    server = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.seen.append(dict(self.headers.items()))
            status, headers, body = server.answers.get(self.path.partition("?")[0], (404, {}, b""))
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def do_HEAD(self) -> None:
            self.do_GET()

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listening.daemon_threads = True
    thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    server.url = f"http://127.0.0.1:{listening.server_port}"
    try:
        yield server
    finally:
        listening.shutdown()
        thread.join()
        listening.server_close()


@pytest.fixture(autouse=True)
def logged_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)


@pytest.fixture
def stranger() -> Iterator[Server]:
    with serving() as server:
        yield server


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with serving() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield server


@pytest.mark.parametrize(
    "url",
    [
        f"{HUB}/owner/name/resolve/main/x.gguf",
        "https://HuggingFace.co:443/owner/name/resolve/main/x.gguf",
        f"{HUB}/#@evil.test/x.gguf",
    ],
)
def test_the_hub_gets_the_token(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", HUB)
    assert headers_for(url)["authorization"] == f"Bearer {TOKEN}"


@pytest.mark.parametrize(
    "url",
    [
        "http://huggingface.co/x.gguf",
        "https://huggingface.co:8443/x.gguf",
        "https://huggingface.co.evil.test/x.gguf",
        "https://evil-huggingface.co/x.gguf",
        "https://evil.test/https://huggingface.co/x.gguf",
        "https://huggingface.co@evil.test/x.gguf",
        "https://huggingface.co:443@evil.test/x.gguf",
        "https://huggingface.co\\@evil.test/x.gguf",
        "https://user:word@huggingface.co/x.gguf",
        "https://huggingface.co%2eevil.test/x.gguf",
        "https://cdn-lfs.huggingface.co/x.gguf",
        "https://127.0.0.1/x.gguf",
    ],
)
def test_look_alikes_of_the_hub_do_not(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", HUB)
    assert TOKEN not in str(headers_for(url))


@pytest.mark.parametrize("url", ["http://[::1/x.gguf", "https://host:port/x.gguf", "https://a\tb/x.gguf"])
def test_what_is_no_address_is_an_error_of_one_line(url: str) -> None:
    with pytest.raises(ThriftbitError, match="is not a valid address") as caught:
        open_outline(url)
    assert "\n" not in str(caught.value)


def test_another_endpoint_takes_the_place_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "https://hub.company.test/api/models")
    assert TOKEN in str(headers_for("https://hub.company.test/api/models/owner/name/resolve/main/x.gguf"))
    for url in (f"{HUB}/x.gguf", "https://hub.company.test/x.gguf", "https://hub.company.test/api/models-of-others/x"):
        assert TOKEN not in str(headers_for(url))


def test_fit_of_an_address_sends_no_token(stranger: Server) -> None:
    with pytest.raises(ThriftbitError):
        open_outline(f"{stranger.url}/x.gguf")
    assert not stranger.token_was_sent()


def test_a_redirect_away_from_the_hub_takes_no_token_along(endpoint: Server, stranger: Server) -> None:
    endpoint.answers["/x.gguf"] = (302, {"Location": f"{stranger.url}/blob"}, b"")
    with pytest.raises(ThriftbitError):
        open_outline(f"{endpoint.url}/x.gguf")
    assert endpoint.token_was_sent() and not stranger.token_was_sent()


def test_a_download_that_is_redirected_takes_no_token_along(
    endpoint: Server, stranger: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    weights, commit = b"weights", "0" * 40
    stranger.answers["/blob"] = (200, {}, weights)
    endpoint.answers[f"/a/b/resolve/{commit}/model.safetensors"] = (302, {"Location": f"{stranger.url}/blob"}, b"")
    (folder := tmp_path / commit).mkdir()
    hub._fetch_resumably(hub.HubId("a/b"), folder, large_file(hashlib.sha256(weights).hexdigest(), len(weights)))
    assert [path.read_bytes() for path in (tmp_path / "cache" / "models--a--b" / "blobs").iterdir()] == [weights]
    assert endpoint.token_was_sent() and not stranger.token_was_sent()


@pytest.mark.parametrize("hash", ["../../../../tmp/taken", "/etc/passwd", "", "A" * 64, "0" * 63, "0" * 65, None, 7])
def test_a_hash_that_is_none_never_becomes_a_path(hash: Any, endpoint: Server, tmp_path: Path) -> None:
    file = large_file(hash, 7)
    with pytest.raises(ThriftbitError, match="so the file cannot be checked"):
        hub._fetch_resumably(hub.HubId("a/b"), tmp_path, file)
    assert not endpoint.seen and list(tmp_path.iterdir()) == []


def large_file(sha256: Any, size_bytes: int) -> RepoSibling:
    lfs: Any = SimpleNamespace(sha256=sha256, size=size_bytes)
    return RepoSibling(rfilename="model.safetensors", size=size_bytes, blob_id="1" * 40, lfs=lfs)


def test_the_search_asks_the_endpoint_with_the_token(endpoint: Server) -> None:
    endpoint.answers["/api/models"] = (200, {"Content-Type": "application/json"}, json.dumps([]).encode())
    assert search_hub(["llama"]).problem is None
    assert endpoint.token_was_sent()
