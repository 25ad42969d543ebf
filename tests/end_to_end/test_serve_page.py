"""`thriftbit serve` in a real browser: llama.cpp's own page works, and pages of other sites get nothing done."""

from __future__ import annotations

import functools
import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from end_to_end.conftest import BROWSERS, MAC_BROWSER
from thriftbit.demo import open_demo_model
from thriftbit.quantization.plan import make_plan
from thriftbit.quantization.quantize import quantize

ATTACK = """async ([address, body]) => {
    const text = { 'Content-Type': 'text/plain' };
    const ways = [
        fetch(address + '/v1/chat/completions', { method: 'POST', mode: 'no-cors', headers: text, body }),
        fetch(address + '/v1/chat/completions', { method: 'POST', body }),
        fetch(address + '/props', { mode: 'no-cors' }),
        new Promise((done) => Object.assign(new Image(), { onload: done, onerror: done, src: address + '/props' })),
    ];
    const seen = await Promise.allSettled(ways);
    return seen.map((each) => each.value?.status ?? 0);
}"""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory, thriftbit_environment: dict[str, str]) -> Iterator[str]:
    model = open_demo_model()
    path = quantize(model, make_plan(model, "Q8_0"), tmp_path_factory.mktemp("page") / "demo.gguf").path
    command = [sys.executable, "-P", "-m", "thriftbit", "serve", str(path), "--port", "0", "--threads", "1", "--json"]
    with subprocess.Popen(
        command, env=thriftbit_environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as run:
        assert run.stdout is not None
        said = ""
        while not said.endswith("}\n"):
            line = run.stdout.readline()
            assert line
            said += line
        yield json.loads(said)["address"]
        run.terminate()


@pytest.fixture(scope="module")
def misled_browser() -> Iterator[Browser]:
    """Yield one for which the name evil.test is this computer, as after DNS rebinding."""
    path = next(filter(None, map(shutil.which, BROWSERS)), None) or str(MAC_BROWSER)
    arguments = ["--host-resolver-rules=MAP evil.test 127.0.0.1"]
    arguments += ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        yield browser
        browser.close()


def predicted(address: str) -> str:
    with urllib.request.urlopen(f"{address}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    return next(line for line in lines if line.startswith("llamacpp:tokens_predicted_total"))


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: object) -> None:
        pass


def test_a_page_of_another_site_gets_nothing_done(misled_browser: Browser, address: str, tmp_path: Path) -> None:
    body = json.dumps({"messages": [{"role": "user", "content": "x"}], "max_tokens": 4})
    (tmp_path / "index.html").write_text("<!doctype html><title>evil</title>")
    before, port = predicted(address), address.rpartition(":")[2]
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=tmp_path)) as evil:
        threading.Thread(target=evil.serve_forever, daemon=True).start()
        page = misled_browser.new_context().new_page()
        page.goto(f"http://evil.test:{evil.server_address[1]}/")
        page.evaluate(ATTACK, [address, body])
        rebound = page.goto(f"http://evil.test:{port}/")  # the name of the page, at the port of the server
        assert rebound is not None and rebound.status == 403
        assert page.evaluate(ATTACK, [f"http://evil.test:{port}", body])[1] == 403
        page.context.close()
        evil.shutdown()
    assert predicted(address) == before


def test_llama_cpps_page_answers_and_leaves_no_service_worker(misled_browser: Browser, address: str) -> None:
    context = misled_browser.new_context()
    page = context.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address)
    box = page.locator("textarea").first
    box.fill("Tell me about the city")
    box.press("Enter")
    page.wait_for_function(
        "() => document.body.innerText.split('Tell me about the city').pop().trim().length > 40", timeout=60_000
    )
    kept = page.evaluate(
        "async () => [(await navigator.serviceWorker.getRegistrations()).length, (await caches.keys()).length,"
        " (await indexedDB.databases()).map((each) => each.name), document.cookie]"
    )
    assert kept == [0, 0, ["LlamaUi"], ""]  # docs/serving.md says what is in there
    assert {url.split("/")[2] for url in asked if url.startswith("http")} == {address.split("/")[2]}
    context.close()
