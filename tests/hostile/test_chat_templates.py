"""Chat templates that a stranger wrote: none hangs, fills the memory or crashes what a user runs."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import psutil
import pytest

from conftest import RunThriftbit
from thriftbit.containers.gguf_values import MetadataValue
from thriftbit.errors import ThriftbitError
from thriftbit.runtime import template_trial
from thriftbit.runtime.chat_template import CHATML, DIALOGUE, fallback_for
from thriftbit.runtime.conversation import Conversation
from thriftbit.runtime.engine import Engine, TemplateError
from thriftbit.runtime.serve import Server
from thriftbit.runtime.smallest_model import write_smallest
from thriftbit.runtime.template_trial import why_unusable

LOOP = "{% for a in range(90000) %}{% for b in range(90000) %}{% endfor %}{% endfor %}"
SAID = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
HOSTILE = {
    "loop": SAID + LOOP,
    "long loop": "{% for i in range(10000000000) %}{% endfor %}" + SAID,
    "doubling": "{% set n = namespace(s='a') %}{% for i in range(60) %}{% set n.s = n.s + n.s %}{% endfor %}{{ n.s }}",
    "product": SAID + "{{ 'a' * 3400000000 }}",
    "doubling lists": "{% set n = namespace(l=[1]) %}{% for i in range(40) %}{% set n.l = [n.l, n.l] %}{% endfor %}"
    "{{ n.l | tojson }}",
    "output": SAID + "{% for a in range(9000000) %}{{ 'many words, again and again, and once more' }}{% endfor %}",
    "recursion": SAID + "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "parentheses": "{{ " + "(" * 50_000 + "1" + ")" * 50_000 + " }}" + SAID,
    "lists": "{{ " + "[" * 50_000 + "1" + "]" * 50_000 + " }}" + SAID,
    "conditions": "{% if true %}" * 20_000 + SAID + "{% endif %}" * 20_000,
    "negations": "{{ " + "not " * 100_000 + "true }}" + SAID,
    "not closed": "{% for m in messages %}{{ m.content }",
    "refuses": "{{ raise_exception('no') }}",
    "says nothing": "Hello.",
    "odd quotes": "{{ '" + "\\" * 100_001 + "' }}" + SAID,
    "long": SAID + "{# " + "a" * (1 << 20) + " #}",
    "only with tools": SAID + "{% if tools %}" + LOOP + "{% endif %}",
    "only with thoughts": SAID + "{% if enable_thinking %}" + LOOP + "{% endif %}",
    "only when long": SAID + "{% if messages | length > 20 %}" + LOOP + "{% endif %}",
}
LATER = SAID + "{% if 'xyzzy' in messages[-1].content %}" + LOOP + "{% endif %}"
GROWS_LATER = (
    SAID + "{% if 'xyzzy' in messages[-1].content %}{% set n = namespace(s='a') %}"
    "{% for i in range(60) %}{% set n.s = n.s + n.s %}{% endfor %}{{ n.s | length }}{% endif %}"
)
CRASHES_LATER = (
    "{% macro m(x) %}{{ m(x) if 'xyzzy' in x else '' }}{% endmacro %}" + SAID + "{{ m(messages[-1].content) }}"
)


@pytest.fixture(autouse=True)
def nothing_found_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THRIFTBIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(template_trial, "_PROCESSOR_SECONDS", 1)
    monkeypatch.setattr("thriftbit.runtime.engine.RENDERING_SECONDS", 2.0)
    template_trial._tried.cache_clear()


@pytest.fixture
def with_template(tmp_path: Path) -> Callable[[str | None], Path]:
    """Return a file that llama.cpp runs, with this chat template."""

    def make(template: str | None, **more: str) -> Path:
        tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
        metadata: dict[str, MetadataValue] = {
            "tokenizer.ggml.model": "llama",
            "tokenizer.ggml.tokens": tokens,
            "tokenizer.ggml.scores": np.zeros(len(tokens), np.float32),
            "tokenizer.ggml.token_type": np.array([2, 3, 3] + [6] * 256, np.int32),
            "tokenizer.ggml.bos_token_id": np.uint32(1),
            "tokenizer.ggml.eos_token_id": np.uint32(2),
        }
        if template is not None:
            metadata["tokenizer.chat_template"] = template
        return write_smallest(tmp_path / "model.gguf", metadata | more)

    return make


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_template_is_found_out_before_a_model_is_loaded_with_it(name: str) -> None:
    assert why_unusable(HOSTILE[name], None, None, None), name


@pytest.mark.parametrize("template", [CHATML, DIALOGUE, SAID, LATER])
def test_a_good_template_passes_and_is_not_tried_again(template: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert why_unusable(template, None, "<s>", "</s>") == why_unusable(template, SAID, None, None) == ""
    template_trial._tried.cache_clear()
    monkeypatch.setattr(template_trial, "_reason", lambda question: "tried again")
    assert why_unusable(template, None, "<s>", "</s>") == ""
    assert why_unusable(template, None, "<s>", "<end>") == "tried again"


def test_the_template_for_tools_is_tried_as_well(with_template: Callable[..., Path]) -> None:
    found = fallback_for(with_template(SAID, **{"tokenizer.chat_template.tool_use": SAID + LOOP}))
    assert found is not None and "takes too much time or memory" in found.note


@pytest.mark.parametrize("template", [None, "", " ", "\n\t \r\n"])
def test_an_empty_template_is_none(template: str | None, with_template: Callable[..., Path], told: list[str]) -> None:
    with Conversation(with_template(template), context_tokens=512, threads=1) as chat:
        engine = chat._engine
        assert engine is not None and engine.count([{"role": "user", "content": "Hello"}]) > len("User: Hello")
    assert len(told) == 1 and "has no chat template: it is probably a base model" in told[0]


def test_every_command_gets_by_with_a_hostile_template(
    with_template: Callable[..., Path], run_thriftbit: RunThriftbit
) -> None:
    path = with_template(HOSTILE["recursion"])
    with pytest.raises(TemplateError, match="has a chat template that"), Engine(path, context_tokens=128, threads=1):
        raise AssertionError("it was loaded")
    chat = run_thriftbit("chat", path, "-p", "Hi", "--set", "max-tokens=4", "--context", "256", "--threads", "1")
    assert chat.returncode == 0 and "is probably a base model" in chat.stderr, chat.stderr
    speed = run_thriftbit("measure", path, "--only", "speed", "--context", "64")
    assert "Traceback" not in speed.stderr and "signal" not in speed.stderr + speed.stdout


@pytest.mark.parametrize("template", [LATER, GROWS_LATER, CRASHES_LATER], ids=["loops", "grows", "crashes"])
def test_a_template_that_turns_hostile_is_given_up_and_the_question_is_answered(
    template: str, with_template: Callable[..., Path], told: list[str]
) -> None:
    settings = {"max-tokens": 3}
    with Conversation(with_template(template), context_tokens=512, threads=1, settings=settings) as chat:
        chat.ask("Hello", lambda text, is_thought: None)
        assert not told
        chat.ask("xyzzy", lambda text, is_thought: None)
        assert len(told) == 1 and "has a chat template that was too much with this conversation" in told[0]
        assert [message["content"] for message in chat.messages[::2]] == ["Hello", "xyzzy"]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/v1/responses", "/apply-template"])
def test_a_server_gives_up_a_template_that_turns_hostile(
    path: str, with_template: Callable[..., Path], told: list[str]
) -> None:
    def ask(server: Server, text: str) -> tuple[int, str]:
        place = urlsplit(server.address)
        connection = http.client.HTTPConnection(str(place.hostname), place.port, timeout=120)
        said = [{"role": "user", "content": text}]
        body = {"input": text} if path.endswith("responses") else {"messages": said}
        connection.request("POST", path, json.dumps({**body, "max_tokens": 3, "max_output_tokens": 3}))
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        return answer.status, text

    with Server(with_template(CRASHES_LATER), host="127.0.0.1", port=0, context_tokens=512, threads=1) as server:
        assert ask(server, "Hello")[0] == 200
        status, words = ask(server, "xyzzy")
        assert status == 503 and "took too much time or memory" in words
        assert ask(server, "xyzzy")[0] == 200
    assert any("was too much with a conversation" in each for each in told)


WAITS = """
import sys, time
from thriftbit.runtime.engine import Engine
with Engine(sys.argv[1], context_tokens=128, threads=1, chat_template=sys.argv[2]) as engine:
    print(engine.process_id, flush=True)
    time.sleep(600)
"""


def engine_of(run: subprocess.Popen[str]) -> psutil.Process:
    """Return the engine's process, also while it loads."""
    while True:
        for child in psutil.Process(run.pid).children():
            if "thriftbit.runtime.engine_process" in child.cmdline():
                return child
        time.sleep(0.05)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
@pytest.mark.parametrize("template", [DIALOGUE, SAID + LOOP], ids=["loaded", "while loading"])
def test_an_engine_ends_with_its_parent_however_that_died(
    template: str, with_template: Callable[..., Path], thriftbit_environment: dict[str, str]
) -> None:
    command = [sys.executable, "-P", "-c", WAITS, str(with_template(SAID)), template]
    with subprocess.Popen(command, env=thriftbit_environment, stdout=subprocess.PIPE, text=True) as run:
        engine = engine_of(run)
        if template == DIALOGUE:
            assert run.stdout is not None and run.stdout.readline()
        else:
            while engine.cpu_times().user < 2:  # it runs the template by now, and no Python
                time.sleep(0.05)
        os.kill(run.pid, signal.SIGKILL)
        psutil.wait_procs([engine], timeout=20)
        assert not engine.is_running() or engine.status() == psutil.STATUS_ZOMBIE


def test_a_process_is_watched_where_the_system_does_not_end_it() -> None:
    """What macOS and Windows have in place of Linux's own way"""
    sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
    with subprocess.Popen(sleep) as parent, subprocess.Popen(sleep) as child:
        watch = [sys.executable, "-P", "-m", "thriftbit.runtime.end_with_parent", str(parent.pid), str(child.pid)]
        with subprocess.Popen(watch) as watching:
            assert child.poll() is None
            parent.kill()
            assert child.wait(30) != 0 and watching.wait(30) == 0


def test_an_engine_that_takes_more_than_its_model_explains_is_ended(
    with_template: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("thriftbit.runtime.engine.explained_bytes", lambda path, context_tokens: 20 << 20)
    with (
        pytest.raises(ThriftbitError, match="more than the model can explain"),
        Engine(with_template(SAID), context_tokens=128, threads=1) as engine,
    ):
        for _ in range(100):
            engine.memory()
            time.sleep(0.1)
