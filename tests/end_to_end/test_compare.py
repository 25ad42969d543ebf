"""`thriftbit compare` in a real browser, with real engines: asked, stopped, killed, voted on, made to write HTML."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import struct
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
from playwright.sync_api import Browser, Page
from starlette.requests import ClientDisconnect
from starlette.types import Message

import thriftbit
from end_to_end.test_report_page import LAYOUT_PROBLEMS, THEMES
from thriftbit.demo import open_demo_model
from thriftbit.quantization.plan import make_plan
from thriftbit.quantization.quantize import quantize
from thriftbit.runtime.conversation import Conversation
from thriftbit.side_by_side import votes
from thriftbit.side_by_side.application import _Changes
from thriftbit.side_by_side.comparing import Page as ComparePage
from thriftbit.side_by_side.session import Session

SECONDS = 20_000  # milliseconds for what takes an answer
HOSTILE = 'root ::= "<script>window.pwned=1</script><img src=x onerror=window.pwned=1>\\x1b]0;t\\x07\\u202e\\u009b31m"'


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Return the 4-bit file before the original, which is found out all the same."""
    model, folder = open_demo_model(), tmp_path_factory.mktemp("compare")
    return [quantize(model, make_plan(model, level), folder / f"demo-{level}.gguf").path for level in ("Q4_0", "Q8_0")]


@pytest.fixture(scope="module")
def votes_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("data")
        patch.setenv("THRIFTBIT_DATA", str(folder))
        yield folder


@pytest.fixture(scope="module")
def compared(files: list[Path], votes_folder: Path) -> Iterator[ComparePage]:
    with thriftbit.compare(files, context_tokens=512, threads=1) as page:
        yield page


@contextmanager
def opened(browser: Browser, address: str, width: int = 1100) -> Iterator[Page]:
    """Yield the page; afterwards it has asked nobody but its own server,
    and the browser has complained about nothing."""
    context = browser.new_context(viewport={"width": width, "height": 900})
    page = context.new_page()
    complaints: list[str] = []
    requests: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("dialog", lambda dialog: (complaints.append(dialog.message), dialog.dismiss()))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(address)
    page.locator("#files li").first.wait_for()
    yield page
    assert complaints == []
    assert {urlsplit(url).netloc for url in requests if not url.startswith("data:")} == {urlsplit(address).netloc}
    context.close()


def ask(page: Page, text: str, blind: bool = False, longest: str = "100") -> None:
    page.locator("#blind").set_checked(blind)
    page.locator("#longest").select_option(longest)
    page.locator("#question").fill(text)
    page.locator("#question").press("Enter")
    page.get_by_role("heading", name=text, exact=True).wait_for()


def answered(page: Page) -> None:
    page.locator("#send:enabled").wait_for(timeout=SECONDS)


def conversation_of(compared: ComparePage, model: int) -> Conversation:
    return compared.session._writers._conversations[model]


def kill_engine(compared: ComparePage, model: int) -> None:
    engine = conversation_of(compared, model)._engine
    assert engine is not None
    psutil.Process(engine.process_id).kill()


def test_a_question_is_answered_by_both_with_numbers_and_differences(browser: Browser, compared: ComparePage) -> None:
    with opened(browser, compared.address) as page:
        assert "Q8_0" in page.locator("#files li", has=page.locator(".badge")).inner_text()
        ask(page, "Tell me about the city")
        page.locator(".column .text:not(:has(.waiting))").first.wait_for(timeout=SECONDS)  # while it is being written
        answered(page)
        columns = page.locator(".round").first.locator(".column")
        assert [columns.nth(n).locator("h4").inner_text().split()[0] for n in (0, 1)] == ["Q8_0", "Q4_0"]
        for n in (0, 1):
            assert columns.nth(n).locator("dt").all_inner_texts() == [
                *("Speed", "First word", "Memory", "File", "Precision")
            ]
        assert columns.nth(1).locator("ins").count() and columns.nth(0).locator("del").count()
        assert "word" in columns.nth(1).locator(".remark").inner_text()
        assert page.get_by_role("status").inner_text() == "All have answered."
        before = page.locator(".round").first.inner_text()
        page.reload()
        assert page.locator(".round").first.inner_text() == before


def test_a_blind_round_gives_nothing_away_until_the_vote(
    browser: Browser, compared: ComparePage, votes_folder: Path
) -> None:
    with opened(browser, compared.address) as page:
        ask(page, "What is a king?", blind=True)
        answered(page)
        round_shown = page.locator(".round").first
        hidden = round_shown.inner_text()
        assert "Answer 1" in hidden and "Answer 2" in hidden
        assert not any(word in hidden for word in ("Q8_0", "Q4_0", "tokens/s", "MB"))
        _, sent = compared.session.changes(0)
        assert not any(word in json.dumps(sent["rounds"][-1]) for word in ("Q8_0", "Q4_0", "tokens/s", "MB"))
        asked = compared.session.rounds[-1]
        place = next(n for n, answer in enumerate(asked.answers) if answer.model == 0)
        round_shown.get_by_role("button", name=f"Answer {place + 1}").click()
        round_shown.locator(".verdict-line").wait_for()
        assert round_shown.locator(".verdict-line").inner_text().startswith(f"Right: answer {place + 1}")
        assert "Q8_0" in round_shown.inner_text() and "tokens/s" in round_shown.inner_text()
        assert "You picked the original (Q8_0, not Q4_0) in 1 of 1" in page.locator("#tallies").inner_text()
        kept, bad = votes.read()
        assert [vote.picked for vote in kept] == ["original"] and not bad
        text = (votes_folder / "votes.jsonl").read_text()
        assert "king" not in text and asked.answers[0].text.strip()[:20] not in text
    assert compared.results()[0].startswith("You picked the original (Q8_0, not Q4_0) in 1 of 1 (100%")


def test_with_the_keyboard_alone(browser: Browser, compared: ComparePage) -> None:
    with opened(browser, compared.address) as page:
        assert page.evaluate("document.activeElement.id") == "question"
        page.keyboard.type("One")
        page.keyboard.press("Shift+Enter")
        page.keyboard.type("two?")
        page.keyboard.press("Tab")
        page.keyboard.press("Space")  # the blind test
        page.keyboard.press("Shift+Tab")
        page.keyboard.press("Enter")
        page.locator(".vote").wait_for(timeout=SECONDS)
        assert page.locator(".round h3").first.inner_text() == "One\ntwo?"
        assert page.evaluate("document.activeElement.className") == "vote"
        page.keyboard.press("3")
        page.locator(".round").first.locator(".verdict-line").wait_for()
        assert "counted half" in page.locator("#tallies").inner_text()
        assert page.evaluate("document.activeElement.id") == "question"


def test_an_answer_can_be_stopped_and_a_stopped_blind_round_does_not_count(
    browser: Browser, compared: ComparePage
) -> None:
    before = len(votes.read()[0])
    with opened(browser, compared.address) as page:
        for blind in (False, True):
            engine = conversation_of(compared, 0)._engine
            assert engine is not None
            psutil.Process(engine.process_id).suspend()  # it is quick, and would be ready before
            ask(page, f"Go on, {blind}", blind=blind, longest="400")
            page.keyboard.press("Escape")
            page.wait_for_timeout(300)
            psutil.Process(engine.process_id).resume()
            answered(page)
            assert "Stopped." in page.locator(".round").first.inner_text()
        assert "does not count" in page.locator(".round").first.inner_text() and not page.locator(".vote").count()
        ask(page, "Whole again?")
        answered(page)
        assert "Stopped." not in page.locator(".round").first.inner_text()
    assert len(votes.read()[0]) == before


def test_a_model_that_dies_is_told_in_its_column_and_answers_the_next(browser: Browser, compared: ComparePage) -> None:
    with opened(browser, compared.address) as page:
        kill_engine(compared, 1)
        ask(page, "Anybody there?")
        answered(page)
        columns = page.locator(".round").first.locator(".column")
        assert columns.nth(0).locator(".failed").count() == 0 and columns.nth(0).locator(".text").inner_text()
        assert "it ended with signal 9" in columns.nth(1).locator(".failed").inner_text()
        kill_engine(compared, 0)
        ask(page, "A blind one?", blind=True)
        answered(page)
        assert "does not count" in page.locator(".round").first.inner_text()
        ask(page, "And now?")
        answered(page)
        assert page.locator(".round").first.locator(".failed").count() == 0


def test_what_a_model_writes_stays_text(
    browser: Browser, compared: ComparePage, monkeypatch: pytest.MonkeyPatch
) -> None:
    for model in (0, 1):
        monkeypatch.setattr(conversation_of(compared, model), "_sampling", lambda: {"grammar": HOSTILE})
    with opened(browser, compared.address) as page:
        ask(page, "<b>Bold</b>?")
        answered(page)
        for blind in (False, True):
            written = page.locator(".round").first.locator(".text").first.inner_text()
            assert "<script>window.pwned=1</script><img" in written and "\\x1b]0;t\\x07\\u202e\\x9b31m" in written
            assert not blind or "Both wrote the same" in page.locator(".vote").inner_text()
            assert page.evaluate("window.pwned") is None and page.locator(".round :is(script, img), h3 b").count() == 0
            if not blind:
                ask(page, "Again?", blind=True)
                answered(page)
        assert not {"\u202e", "\x1b", "\x9b"} & set(page.content())


@pytest.mark.parametrize("width", [360, 1100])
def test_everything_fits_and_can_be_read(browser: Browser, compared: ComparePage, width: int, tmp_path: Path) -> None:
    with opened(browser, compared.address, width) as page:
        ask(page, f"The last one on {width}?", blind=True)
        answered(page)
        for theme in THEMES:
            page.emulate_media(color_scheme=theme)
            page.screenshot(path=tmp_path / f"compare-{width}-{theme}.png", full_page=True)
            assert page.evaluate(LAYOUT_PROBLEMS) == [], theme
        unlabelled = page.locator("button:not(:has-text('')), textarea, select, input").evaluate_all(
            "(all) => all.filter((each) => !each.labels?.length && !each.textContent).length"
        )
        assert unlabelled == 0 and page.get_by_role("main").count() == 1


def request(page: ComparePage, path: str, body: object = None, **headers: str) -> tuple[int, str]:
    place = urlsplit(page.address)
    connection = http.client.HTTPConnection("127.0.0.1", place.port, timeout=10)
    sent = None if body is None else json.dumps(body)
    connection.request("GET" if body is None else "POST", path, sent, {name.title(): v for name, v in headers.items()})
    answer = connection.getresponse()
    said = answer.read(2000).decode() if path != "/api/changes" or answer.status != 200 else ""
    connection.close()
    return answer.status, said


def test_strangers_are_not_answered(compared: ComparePage) -> None:
    place, key = urlsplit(compared.address), compared.address.partition("#key=")[2]
    bearer = f"Bearer {key}"
    assert request(compared, "/api/changes", authorization=bearer)[0] == 200
    for path, body in (("/api/changes", None), ("/api/ask", {}), ("/api/stop", {}), ("/api/vote", {})):
        assert request(compared, path, body)[0] == 401
        assert request(compared, path, body, authorization="Bearer wrong")[0] == 401
        assert request(compared, path, body, authorization=bearer, host="evil.example")[0] == 403
        assert request(compared, path, body, authorization=bearer, host=f"evil.example:{place.port}")[0] == 403
        assert request(compared, path, body, authorization=bearer, origin="http://evil.example")[0] == 403
        assert request(compared, path, body, authorization=bearer, origin="null")[0] == 403
    assert request(compared, "/", host="evil.example")[0] == 403
    status, said = request(compared, "/")
    assert status == 200 and key not in said
    assert {c.laddr.ip for c in psutil.Process().net_connections() if c.laddr.port == place.port} == {"127.0.0.1"}


def test_a_ticket_is_good_once(browser: Browser, compared: ComparePage) -> None:
    address = compared.address_for_once()
    with opened(browser, address) as page:
        assert page.url == compared.address
        page.reload()
        page.locator("#files li").first.wait_for()
    ticket = address.partition("#ticket=")[2]
    assert request(compared, "/api/enter", {"ticket": ticket})[0] == 401
    assert request(compared, "/api/enter", {"ticket": ["x"]})[0] == 401


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("/api/ask", {"question": "  ", "blind": False, "against": 1, "temperature": 0, "longest": 100}, "more than"),
        ("/api/ask", {"question": "x", "blind": False, "against": 0, "temperature": 0, "longest": 100}, "no such"),
        ("/api/ask", {"question": "x", "blind": False, "against": 1, "temperature": 9, "longest": 100}, "from 0 to 2"),
        (
            "/api/ask",
            {"question": "x", "blind": False, "against": 1, "temperature": 10**400, "longest": 100},
            "larger than any number",
        ),
        ("/api/ask", {"question": "x", "blind": 1, "against": 1, "temperature": 0, "longest": 100}, "blind"),
        ("/api/ask", [], "no JSON object"),
        ("/api/vote", {"number": 10_000, "picked": 0}, "nothing to vote on"),
        ("/api/vote", {"number": 1, "picked": 0}, "nothing to vote on"),
    ],
)
def test_senseless_requests_are_refused_in_a_sentence(
    path: str, body: object, message: str, compared: ComparePage
) -> None:
    key = compared.address.partition("#key=")[2]
    status, said = request(compared, path, body, authorization=f"Bearer {key}")
    assert status == 409 and message in json.loads(said)["error"]


def test_three_that_do_not_fit_together_answer_one_after_the_other(
    files: list[Path],
    votes_folder: Path,
    browser: Browser,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    told: list[str],
) -> None:
    from thriftbit.side_by_side import comparing

    monkeypatch.setattr(comparing, "fit_together", lambda paths, context: False)
    model = open_demo_model()
    third = quantize(model, make_plan(model, "Q2_K"), tmp_path / "demo-Q2_K.gguf").path
    with (
        thriftbit.compare([*files, third], context_tokens=256, threads=1) as compared,
        opened(browser, compared.address) as page,
    ):
        assert compared.manner == "one loaded at a time" and "do not fit into memory together" in "".join(told)
        assert [conversation_of(compared, n)._engine for n in range(3)] == [None] * 3
        assert "each is loaded, answers and is let go" in page.locator("#how").inner_text()
        ask(page, "Where?")
        answered(page)
        assert page.locator(".round").first.locator(".column").count() == 3
        assert [conversation_of(compared, n)._engine for n in range(3)] == [None] * 3
        page.locator("#blind").check()
        assert page.locator("#against option").all_inner_texts() == ["Q4_0", "Q2_K"]
        page.locator("#against").select_option("Q2_K")
        ask(page, "Which?", blind=True)
        answered(page)
        assert sorted(answer.model for answer in compared.session.rounds[-1].answers) == [0, 2]


def test_at_once(files: list[Path], votes_folder: Path) -> None:
    with thriftbit.compare(files, context_tokens=256, threads=1, at_once=True) as compared:
        asked = compared.session.ask("Where?", longest=100)
        assert compared.session._worker is not None
        compared.session._worker.join(30)
        assert compared.manner == "at once" and asked.counts


def test_clients_that_go_away_are_nothing_special(compared: ComparePage, caplog: pytest.LogCaptureFixture) -> None:
    place, key = urlsplit(compared.address), compared.address.partition("#key=")[2]
    head = f"HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {key}\r\n"
    for begun in (f"GET /api/changes {head}\r\n", f"POST /api/ask {head}Content-Length: 100\r\n\r\nhalf"):
        with socket.create_connection(("127.0.0.1", place.port or 0)) as connection:
            connection.sendall(begun.encode())
            if begun.startswith("GET"):
                assert connection.recv(1000)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset
    deadline = time.monotonic() + 30
    while compared.session._listeners and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not compared.session._listeners and not caplog.records
    status, _ = request(compared, "/api/changes", authorization=f"Bearer {key}")
    assert status == 200


def test_a_client_that_goes_away_amid_a_line_is_listened_for_no_longer(compared: ComparePage) -> None:
    session = Session(compared.session.lineup, compared.session._writers, compared.session._manner)
    response = _Changes(session)

    async def send(message: Message) -> None:
        if message["type"] == "http.response.body":
            assert len(session._listeners) == 1
            raise OSError("gone")

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def serve_it() -> None:
        with pytest.raises(ClientDisconnect):
            await response({"type": "http", "asgi": {"spec_version": "2.4"}}, receive, send)
        assert session._listeners == []  # while the response is still alive: nothing waits for garbage collection

    with ThreadPoolExecutor(1) as thread:  # Playwright runs an event loop in this one
        thread.submit(lambda: asyncio.run(serve_it())).result()
