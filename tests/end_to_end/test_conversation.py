"""A conversation outlives a full context, a dead engine, a broken template and a full disk."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from thriftbit.advice.ready import plan_for
from thriftbit.cli.chat_screen import answer_once
from thriftbit.demo import open_demo_model
from thriftbit.errors import ThriftbitError, UsageError
from thriftbit.machine.room import Room
from thriftbit.machine.running_plan import NO_WISHES
from thriftbit.quantization.plan import make_plan
from thriftbit.quantization.quantize import quantize
from thriftbit.runtime.chat_settings import Value
from thriftbit.runtime.conversation import Conversation
from thriftbit.runtime.conversation_file import load, save
from thriftbit.runtime.engine import Engine, EngineDiedError, TemplateError

START = '{"kind": "thriftbit conversation", "version": 1, "system": ""'
SHORT: dict[str, Value] = {"temperature": 0.0, "max-tokens": 5}


def nothing(text: str, is_thought: bool) -> None:
    """Listens to nothing"""


@pytest.fixture(scope="module")
def with_template(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str | None], Path]:
    """Return a function that makes the demo model with a chat template."""
    made: dict[str | None, Path] = {}

    def make(template: str | None) -> Path:
        if template not in made:
            model = open_demo_model()
            metadata = {key: value for key, value in model.metadata.items() if key != "tokenizer.chat_template"}
            model = replace(model, metadata=metadata | ({"tokenizer.chat_template": template} if template else {}))
            path = tmp_path_factory.mktemp("chat") / "demo.gguf"
            made[template] = quantize(model, make_plan(model, "Q8_0"), path).path
        return made[template]

    return make


@pytest.fixture
def path(with_template: Callable[[str | None], Path]) -> Path:
    return with_template("{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}")


def test_an_answer_comes_in_pieces_that_make_it_up(path: Path) -> None:
    pieces: list[str] = []
    with Conversation(path, context_tokens=256, threads=1, settings=SHORT) as conversation:
        answer = conversation.ask("Where?", lambda text, is_thought: pieces.append(text))
        assert len(pieces) > 1 and "".join(pieces) == answer.text and answer.generated_tokens == 5
        assert conversation.messages == [
            {"role": "user", "content": "Where?"},
            {"role": "assistant", "content": answer.text},
        ]
        known = conversation.statistics()
    assert known.tokens_per_second > 0 and known.memory_bytes and 0 < known.used_tokens < 256 == known.context_tokens
    assert known.left_tokens == 256 - known.used_tokens


def test_another_answer_replaces_the_first(path: Path) -> None:
    with Conversation(path, context_tokens=256, threads=1, settings=SHORT) as conversation:
        with pytest.raises(UsageError, match="no question yet"):
            conversation.retry(nothing)
        conversation.ask("Where?", nothing)
        conversation.settings |= {"temperature": 5.0, "seed": 3}
        again = conversation.retry(nothing)
        assert [message["content"] for message in conversation.messages] == ["Where?", again.text]


def test_an_answer_can_be_stopped_and_the_next_is_whole(path: Path) -> None:
    with Conversation(path, context_tokens=512, threads=1, settings={"temperature": 0.0}) as conversation:

        def stop(text: str, is_thought: bool) -> None:
            threading.Thread(target=conversation.stop).start()

        assert conversation.ask("Go on", stop).ended == "stopped"
        conversation.settings["max-tokens"] = 4
        assert conversation.ask("Where?", nothing).generated_tokens == 4


def test_a_full_context_drops_the_oldest_turns_and_says_so(path: Path, told: list[str]) -> None:
    with Conversation(path, context_tokens=128, threads=1, settings=SHORT) as conversation:
        for number in range(8):
            conversation.ask(f"What is the city number {number} called, please?", nothing)
        assert conversation.dropped_messages > 0 and conversation.statistics().used_tokens <= 128
        assert len(conversation.messages) == 16  # nothing said is forgotten
        with pytest.raises(ThriftbitError, match=r"too long: [\d,]+ tokens, and the context holds 128"):
            conversation.ask("word " * 500, nothing)
        assert len(conversation.messages) == 16 and conversation.ask("Still there?", nothing).text
    assert any("no longer sees the oldest question" in message for message in told)


def test_an_answer_that_fills_the_context_ends_and_says_so(path: Path, told: list[str]) -> None:
    with Conversation(path, context_tokens=64, threads=1) as conversation:
        engine = conversation._engine
        assert engine is not None
        # a model that never ends by itself
        conversation._sampling = lambda: {"ignore_eos": True}  # type: ignore[method-assign]
        assert conversation.ask("On and on", nothing).ended == "length"
    assert told and "The context is full, so the answer ends here" in told[-1]


def test_a_dead_engine_ends_the_answer_and_the_conversation_goes_on(path: Path) -> None:
    with Conversation(path, context_tokens=512, threads=1, settings={"temperature": 0.0}) as conversation:
        conversation.settings["max-tokens"] = 5
        conversation.ask("Where?", nothing)
        before = list(conversation.messages)
        conversation.settings["max-tokens"] = 200

        def kill(text: str, is_thought: bool) -> None:
            assert conversation._engine is not None
            os.kill(conversation._engine.process_id, signal.SIGKILL)

        with pytest.raises(EngineDiedError, match=r"demo\.gguf: .*it ended with signal 9"):
            conversation.ask("And then?", kill)
        assert conversation.messages == before
        conversation.settings["max-tokens"] = 5
        assert conversation.retry(nothing).generated_tokens == 5
        assert conversation.messages[-2]["content"] == "And then?"


@pytest.mark.parametrize("template", ["{% for m in messages %}{{ m.content }", "{{ raise_exception('no') }}"])
def test_a_broken_template_is_told_and_another_one_used(
    template: str, with_template: Callable[[str | None], Path], told: list[str]
) -> None:
    path = with_template(template)
    with pytest.raises(TemplateError), Engine(path, context_tokens=128, threads=1):
        pass
    with Conversation(path, context_tokens=128, threads=1, settings=SHORT) as conversation:
        assert conversation.ask("Where?", nothing).text
    assert told == [
        "Note: demo.gguf has a chat template that llama.cpp cannot use: it is probably a base model, and "
        "continues your text rather than answers it."
    ]


def test_a_missing_template_is_told_and_the_answer_ends_before_the_next_question(
    with_template: Callable[[str | None], Path], told: list[str]
) -> None:
    path = with_template(None)
    with Conversation(path, context_tokens=256, threads=1, settings={"temperature": 0.0}) as made:
        made.settings["max-tokens"] = 60
        assert "User:" not in made.ask("Where is it?", nothing).text
    assert len(told) == 1 and told[0].startswith("Note: demo.gguf has no chat template")


def test_what_was_saved_goes_on(path: Path, tmp_path: Path) -> None:
    file = tmp_path / "chat.json"
    with Conversation(path, context_tokens=256, threads=1, system="Be brief.", settings=SHORT) as conversation:
        conversation.ask("Where? \x1b[31m", nothing)
        save(conversation, file)
        with pytest.raises(ThriftbitError, match="exists already"):
            save(conversation, file)
        save(conversation, file, force=True)
        said = list(conversation.messages)
        conversation.clear()
        conversation.system = ""
        load(conversation, file)
        assert (conversation.messages, conversation.system, conversation.settings) == (said, "Be brief.", SHORT)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "not json",
        "[" * 100_000,
        "[]",
        '{"kind": "something else"}',
        '{"kind": "thriftbit conversation", "version": 99}',
        f'{START}, "settings": {{}}, "messages": [{{"role": "user"}}]}}',
        f'{START}, "settings": {{}}, "messages": [{{"role": "user", "content": "x"}}]}}',
        f'{START}, "settings": {{"seed": "x"}}, "messages": []}}',
    ],
)
def test_a_file_that_is_no_conversation_changes_nothing(content: str, path: Path, tmp_path: Path) -> None:
    file = tmp_path / "chat.json"
    file.write_text(content)
    conversation = Conversation(path, context_tokens=256, system="Be brief.")
    with pytest.raises(ThriftbitError):
        load(conversation, file)
    assert conversation.system == "Be brief." and conversation.messages == []


@pytest.mark.skipif(sys.platform == "win32", reason="limits the size of files as Unix does")
def test_a_full_disk_while_saving_is_told_and_loses_nothing(path: Path, tmp_path: Path) -> None:
    import resource

    file = tmp_path / "chat.json"
    conversation = Conversation(path, context_tokens=256)
    conversation.restore([{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}], "", {})
    save(conversation, file)
    before = file.read_bytes()
    conversation.restore([{"role": "user", "content": "x" * 9999}, {"role": "assistant", "content": "y"}], "", {})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(ThriftbitError, match=r"chat\.json: the disk is full"):
            save(conversation, file, force=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert file.read_bytes() == before and len(conversation.messages) == 2
    save(conversation, file, force=True)
    assert json.loads(file.read_text())["messages"] == conversation.messages


def test_a_context_larger_than_the_model_was_made_for_is_told(path: Path, told: list[str]) -> None:
    assert plan_for(path, 100).plan.context_tokens == 100 and not told
    assert plan_for(path, 1 << 20).plan.context_tokens < 1 << 20
    assert "was made for a context of" in told.pop()


def test_a_context_that_does_not_fit_is_shrunk_or_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch, told: list[str]
) -> None:
    from thriftbit.advice import ready

    real = ready.computer_for
    monkeypatch.setattr(ready, "LEAST_CONTEXT_TOKENS", 128)  # the model was made for 512
    needed = ready._option(ready.open_outline(path), ready.computer_profile(None), 128, NO_WISHES).memory.lasting.high
    assert needed is not None

    def leave(size_bytes: float) -> None:
        room = Room(round(size_bytes), 0, "", False, "free now")
        monkeypatch.setattr(ready, "computer_for", lambda *arguments: replace(real(*arguments), room=room))

    leave(needed)
    assert plan_for(path, None).plan.context_tokens == 128
    assert told == ["A context of 512 tokens does not fit into the memory that is free now; it gets 128."]
    leave(needed / 2)
    with pytest.raises(ThriftbitError, match=r"demo\.gguf: takes .* of memory even with a context of 128 tokens"):
        plan_for(path, None)


def test_a_model_that_writes_escape_sequences_drives_nothing(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    forced = {"grammar": 'root ::= "a\\x1b]0;title\\x07b" "\\u202e\\u009b31m"'}  # a real model, made to write them
    with Conversation(path, context_tokens=256, threads=1) as conversation:
        conversation._sampling = lambda: forced  # type: ignore[method-assign]
        for as_json in (False, True):
            assert answer_once(conversation, "Where?", as_json) == 0
            written = capsys.readouterr().out
            assert not set(written) & set("\x1b\x07\u202e\x9b") and "title" in written
    assert conversation.messages[-1]["content"] == "a\x1b]0;title\x07b\u202e\x9b31m"


def test_a_note_in_the_middle_of_a_line_waits_for_its_end(
    path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A terminal shows both outputs: "is locatedThe context is full" was one line."""
    order: list[str] = []
    monkeypatch.setattr("thriftbit.cli.chat_screen.announce_at_once", order.append)
    monkeypatch.setattr("thriftbit.cli.chat_screen.print", lambda: order.append("end of line"), raising=False)
    logging.getLogger("thriftbit").setLevel(logging.INFO)
    with Conversation(path, context_tokens=64, threads=1) as conversation:
        conversation._sampling = lambda: {"grammar": 'root ::= "on " root'}  # type: ignore[method-assign]
        assert answer_once(conversation, "Where is it?", as_json=False) == 0
    assert not capsys.readouterr().out.endswith("\n")
    assert order[0] == "end of line" and order[1].startswith("The context is full")
