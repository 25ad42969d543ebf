"""`thriftbit chat` as people and scripts use it: in a terminal of their own, or with text piped through."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import psutil
import pytest

from conftest import RunThriftbit
from thriftbit.demo import open_demo_model
from thriftbit.quantization.plan import make_plan
from thriftbit.quantization.quantize import quantize

pexpect = pytest.importorskip("pexpect")
pyte = pytest.importorskip("pyte")

LINES = 24
BRIEF = ("--threads", "1", "--context", "512", "--set", "temperature=0")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = open_demo_model()
    return quantize(model, make_plan(model, "Q8_0"), tmp_path_factory.mktemp("chat") / "demo.gguf").path


class Terminal:
    """A person's: what is typed, and what stands on it"""

    def __init__(self, demo: Path, environment: Mapping[str, str], columns: int, kind: str = "xterm-256color") -> None:
        self._screen = pyte.HistoryScreen(columns, LINES, history=1000)
        self._stream = pyte.Stream(self._screen)
        self.columns = columns
        self.sent = ""
        self.program = pexpect.spawn(
            sys.executable,
            ["-P", "-m", "thriftbit", "chat", str(demo), *BRIEF, "--set", "max-tokens=400"],
            env={**environment, "TERM": kind, "PROMPT_TOOLKIT_NO_CPR": "1"},
            dimensions=(LINES, columns),
            encoding="utf-8",
        )
        self.wait(self.asks)

    def type(self, text: str) -> None:
        self.program.send(f"{text}\r")
        typed = text.partition("\\")[0][:10]
        self.wait(lambda: typed in self.text)
        self.wait(self.asks)

    def wait(self, until: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                self.read(self.program.read_nonblocking(4096, 0.3))
            except pexpect.TIMEOUT:
                if until():
                    return
            except pexpect.EOF:
                return
        raise AssertionError(self.text)

    def read(self, sent: str) -> None:
        self.sent += sent
        self._stream.feed(sent)

    def asks(self) -> bool:
        return [line for line in self._lines() if line][-1:] == [">"]

    @property
    def text(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> list[str]:
        gone = ["".join(line[x].data for x in range(self.columns)) for line in self._screen.history.top]
        return [line.rstrip() for line in (*gone, *self._screen.display)]


@pytest.fixture
def open_terminal(demo: Path, thriftbit_environment: dict[str, str]) -> Iterator[Callable[..., Terminal]]:
    opened: list[Terminal] = []

    def open_one(columns: int = 80, kind: str = "xterm-256color", **environment: str) -> Terminal:
        opened.append(Terminal(demo, thriftbit_environment | environment, columns, kind))
        return opened[-1]

    yield open_one
    for terminal in opened:
        terminal.program.close(force=True)


@pytest.mark.filterwarnings("ignore:.*forkpty.*:DeprecationWarning")
def test_a_session(open_terminal: Callable[..., Terminal], tmp_path: Path) -> None:
    terminal, file = open_terminal(), tmp_path / "said.json"
    terminal.type("/set max-tokens 5")
    terminal.type("Where is it?")
    assert "tokens left" in terminal.text and "cut at max-tokens" in terminal.text
    terminal.type("/stats")
    assert "of 512 tokens used" in terminal.text
    terminal.type("/nonsense")
    assert "there is no command /nonsense" in terminal.text
    terminal.type("/save /no/such/folder/x.json")
    assert "there is no folder /no/such/folder" in terminal.text
    terminal.type("one\\\rtwo")  # a backslash goes on in the next line
    terminal.type(f"/save {file}")
    assert [each["content"] for each in json.loads(file.read_text())["messages"][::2]] == ["Where is it?", "one\ntwo"]
    terminal.program.send("\x04")
    terminal.wait(lambda: False) if terminal.program.isalive() else None
    terminal.program.wait()
    assert terminal.program.exitstatus == 0


@pytest.mark.filterwarnings("ignore:.*forkpty.*:DeprecationWarning")
def test_ctrl_c_stops_the_answer_and_not_the_program(open_terminal: Callable[..., Terminal]) -> None:
    terminal = open_terminal()
    terminal.type("/set repeat-penalty 1")
    terminal.program.send("Tell me about the city\r")
    time.sleep(0.1)
    (engine,) = psutil.Process(terminal.program.pid).children()
    engine.suspend()  # it is quick, and would be ready before the signal is there
    terminal.program.sendintr()
    time.sleep(0.5)
    engine.resume()
    terminal.wait(terminal.asks)
    assert "stopped" in terminal.text
    terminal.program.sendintr()  # nothing to stop: what was typed is thrown away, and it asks again
    terminal.wait(terminal.asks)
    terminal.type("/exit")
    terminal.program.wait()
    assert terminal.program.exitstatus == 0 and "Traceback" not in terminal.text


@pytest.mark.filterwarnings("ignore:.*forkpty.*:DeprecationWarning")
def test_a_dead_engine_is_told_in_the_session(open_terminal: Callable[..., Terminal]) -> None:
    terminal = open_terminal()
    (engine,) = psutil.Process(terminal.program.pid).children()
    engine.kill()
    terminal.type("Where is it?")
    assert "it ended with signal 9" in terminal.text and "The conversation is still here" in terminal.text
    terminal.type("/set max-tokens 3")
    terminal.type("/retry")
    assert "tokens left" in terminal.text


@pytest.mark.filterwarnings("ignore:.*forkpty.*:DeprecationWarning")
@pytest.mark.parametrize("columns", [40, 120])
def test_narrow_and_wide_terminals_without_colour(columns: int, open_terminal: Callable[..., Terminal]) -> None:
    terminal = open_terminal(columns, NO_COLOR="1")
    terminal.type("/set max-tokens 40")
    terminal.type("/help")
    terminal.type("Where is it?")
    assert "tokens left" in terminal.text and "\x1b[31m" not in terminal.sent and "\x1b[38;" not in terminal.sent


@pytest.mark.filterwarnings("ignore:.*forkpty.*:DeprecationWarning")
def test_a_terminal_that_cannot_move_its_cursor(open_terminal: Callable[..., Terminal]) -> None:
    terminal = open_terminal(80, "dumb")
    terminal.type("/set max-tokens 20")
    terminal.type("Where is it?")
    assert "tokens left" in terminal.text and "\x1b" not in terminal.sent


def chat(arguments: list[str | Path], typed: str, environment: dict[str, str], folder: Path, **more: str) -> Result:
    command = [sys.executable, "-P", "-m", "thriftbit", "chat", *map(str, arguments)]
    return subprocess.run(
        command, input=typed, cwd=folder, env=environment | more, capture_output=True, encoding="utf-8", timeout=120
    )


Result = subprocess.CompletedProcess[str]


def test_a_script_gets_the_answer_and_nothing_else(
    demo: Path, tmp_path: Path, thriftbit_environment: dict[str, str]
) -> None:
    brief = [demo, *BRIEF, "--set", "max-tokens=6"]
    asked = chat([*brief, "-p", "Where?"], "", thriftbit_environment, tmp_path)
    assert asked.returncode == 0 and asked.stdout.strip() and "Note:" in asked.stderr
    piped = chat(brief, "Where?", thriftbit_environment, tmp_path)
    assert piped.stdout == asked.stdout
    both = chat([*brief, "-p", "Sum up:", "--json"], "A text.\n", thriftbit_environment, tmp_path)
    document = json.loads(both.stdout)
    assert document["generated_tokens"] == 6 and document["answer"] and document["provenance"] == "measured here"
    assert (
        document["prompt_tokens"]
        > json.loads(chat([*brief, "-p", "Sum up:", "--json"], "", thriftbit_environment, tmp_path).stdout)[
            "prompt_tokens"
        ]
    )


@pytest.mark.parametrize(
    ("arguments", "exit_code", "message"),
    [
        (["DEMO", "-p", "  "], 2, "there is no question"),
        (["none.gguf", "-p", "x"], 1, "none.gguf: no such file"),
        (["DEMO", "-p", "x", "--set", "heat=1"], 2, "there is no setting"),
        (["DEMO", "-p", "x", "--load", "none.json"], 1, "none.json does not exist"),
        (["DEMO", "-p", "word " * 900, "--context", "512"], 1, "that is too long"),
        (["DAMAGED", "-p", "x"], 1, "damaged.gguf: "),
    ],
)
def test_what_is_wrong_is_told_in_a_line(
    arguments: list[str],
    exit_code: int,
    message: str,
    demo: Path,
    tmp_path: Path,
    thriftbit_environment: dict[str, str],
) -> None:
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(demo.read_bytes()[:-100_000])
    places = {"DEMO": demo, "DAMAGED": damaged}
    result = chat([places.get(each, each) for each in arguments], "", thriftbit_environment, tmp_path)
    assert result.returncode == exit_code and message in result.stderr and result.stdout == ""
    assert "Traceback" not in result.stderr


def test_ctrl_c_ends_a_script_with_what_there_is(demo: Path, thriftbit_environment: dict[str, str]) -> None:
    command = [sys.executable, "-P", "-m", "thriftbit", "chat", str(demo), *BRIEF, "-p", "Tell me about the city"]
    with subprocess.Popen(command, env=thriftbit_environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as run:
        assert run.stdout is not None
        first = run.stdout.read(1)
        (engine,) = psutil.Process(run.pid).children()
        engine.suspend()  # it is quick, and would be ready before the signal is there
        run.send_signal(signal.SIGINT)
        time.sleep(0.5)
        engine.resume()
        rest = run.stdout.read()
    assert run.returncode == 130 and first and rest.endswith(b"\n")


def test_a_reader_that_has_enough_is_no_error(demo: Path, thriftbit_environment: dict[str, str]) -> None:
    command = [sys.executable, "-P", "-m", "thriftbit", "chat", str(demo), *BRIEF, "-p", "Tell me about the city"]
    with subprocess.Popen(
        command, env=thriftbit_environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as run:
        assert run.stdout is not None and run.stderr is not None
        run.stdout.read(1)
        run.stdout.close()
        assert b"Traceback" not in run.stderr.read() and b"Exception" not in run.stderr.read()


def test_a_folder_is_quantized_first_and_what_was_made_is_used_again(
    tiny_llama: Path, tmp_path: Path, thriftbit_environment: dict[str, str]
) -> None:
    arguments = [tiny_llama, "-p", "x", "--set", "max-tokens=2", "--threads", "1"]
    first = chat(arguments, "", thriftbit_environment, tmp_path)
    assert first.returncode == 0 and "which `thriftbit fit` recommends" in first.stderr
    (made,) = tmp_path.glob("*.gguf")
    again = chat(arguments, "", thriftbit_environment, tmp_path)
    assert again.returncode == 0 and f"Using {made.name}, which is here already" in again.stderr
    assert list(tmp_path.glob("*.gguf")) == [made]


def test_a_model_that_is_not_here_is_not_downloaded_unasked(run_thriftbit: RunThriftbit) -> None:
    result = run_thriftbit("chat", "nobody/nothing", "-p", "x", "--offline")
    assert result.returncode == 1 and "nobody/nothing" in result.stderr and "Traceback" not in result.stderr


def test_much_is_not_written_unasked(tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from thriftbit.advice import ready
    from thriftbit.errors import ThriftbitError

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ready, "LITTLE_BYTES", 1000)
    asked: list[str] = []
    with pytest.raises(ThriftbitError, match="nothing was downloaded or written"):
        ready.ready_to_run(str(tiny_llama), offline=True, confirm=lambda words: bool(asked.append(words)))
    assert asked == ["Go on?"] and not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore:.*forkpty.*:DeprecationWarning")
def test_what_is_typed_during_an_answer_is_the_next_question(
    open_terminal: Callable[..., Terminal], tmp_path: Path
) -> None:
    terminal, file = open_terminal(), tmp_path / "said.json"
    terminal.type("/set max-tokens 40")
    terminal.program.send("Where is it?\r")
    terminal.wait(lambda: "Where is it?" in terminal.text)
    terminal.program.send("And who?\r")
    terminal.wait(lambda: terminal.text.count("tokens left") == 2 and terminal.asks())
    answer = terminal.text.partition("> Where is it?")[2].partition("tokens left")[0]
    assert "And who?" not in answer
    terminal.type(f"/save {file}")
    assert [each["content"] for each in json.loads(file.read_text())["messages"][::2]] == ["Where is it?", "And who?"]


@pytest.mark.filterwarnings("ignore:.*forkpty.*:DeprecationWarning")
def test_settings_show_their_defaults_and_exit_leaves(open_terminal: Callable[..., Terminal]) -> None:
    terminal = open_terminal()
    terminal.type("/set")
    assert "top-k 40 (default)" in terminal.text and "temperature 0 " in terminal.text
    terminal.program.send("exit\r")
    terminal.wait(lambda: "Leaving, as /exit and Ctrl-D do" in terminal.text)
    terminal.program.wait()
    assert terminal.program.exitstatus == 0
