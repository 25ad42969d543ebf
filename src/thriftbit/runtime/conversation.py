"""A conversation with a model: what was said, how much of it the model still sees, and an engine that may die.

llama.cpp stops when its context is full, and when it crashes. A conversation goes on in both cases. Before every
question it counts what the model would be shown, and leaves out the oldest turns, whole, until a fair answer fits.
When the engine dies, its answer ends with the reason, and the next question starts another engine. The same happens
when the model was unloaded because nobody asked anything. Nothing that was said is forgotten here: what is saved is
all of it.

Left out: summing up what is dropped. That takes minutes on the computers this is for, and changes what was said.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from thriftbit.errors import ThriftbitError, UsageError
from thriftbit.machine.running_plan import RunningPlan
from thriftbit.runtime.chat_settings import SETTINGS, Value
from thriftbit.runtime.chat_template import Fallback, fallback_after, fallback_for
from thriftbit.runtime.engine import STOPPED, Engine, EngineDiedError, TemplateError
from thriftbit.runtime.generation import Generation
from thriftbit.runtime.idle import IdleWatch
from thriftbit.runtime.polite import UNLOAD_AFTER_MINUTES, Readings, check_room, read_now
from thriftbit.runtime.thread_limit import ProcessorTimes, cores_of_others

_logger = logging.getLogger(__name__)

Listen = Callable[[str, bool], None]

_ANSWER_TOKENS = 512  # kept free for an answer; in a small context
_ANSWER_SHARE = 0.25  # this share of it


@dataclass(frozen=True)
class Statistics:
    """Speeds of the last answer in tokens/s, 0 before there is one. memory_bytes: what the engine's process holds now;
    None if it is not running. used_tokens: how much of the context the model would be shown now. threads: how many the
    model was started with; None for llama.cpp's own choice. threads_now: how many compute now, beside other programs.
    unloaded: why the model is not in memory, "" if it is. plan: how it runs. drafted_tokens, accepted_tokens: of all
    answers so far."""

    tokens_per_second: float
    prompt_tokens_per_second: float
    memory_bytes: int | None
    used_tokens: int
    context_tokens: int
    dropped_messages: int
    threads: int | None
    threads_now: int | None
    polite: bool
    unloaded: str
    plan: RunningPlan
    drafted_tokens: int
    accepted_tokens: int

    @property
    def left_tokens(self) -> int:
        return max(0, self.context_tokens - self.used_tokens)


class Conversation:
    """`with Conversation(path, context_tokens=4096) as conversation: conversation.ask("Hello", on_text)`

    messages: all that was said, {"role": "user" | "assistant", "content": text}; questions and answers in turn. system:
    the system text, "" for the template's own. settings: of `chat_settings.py`. dropped_messages:
    how many of the oldest the model is not shown any more. plan: how it runs; of one without anything but a context of
    context_tokens, if None. What the user has to know is logged.
    doing: hears what the conversation waits for now, "loading demo.gguf", and "" when it waits no longer.
    polite: other programs come first, and a model that nobody asks is unloaded when memory gets short.
    unload_after_minutes: after so long without a question the model is unloaded, and the next question loads it again.
    None for never.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        context_tokens: int = 4096,
        plan: RunningPlan | None = None,
        threads: int | None = None,
        system: str = "",
        settings: dict[str, Value] | None = None,
        doing: Callable[[str], None] = lambda what: None,
        polite: bool = True,
        unload_after_minutes: float | None = UNLOAD_AFTER_MINUTES,
        read: Callable[[], Readings] = read_now,
    ) -> None:
        self.path = Path(path)
        self.plan = plan or RunningPlan(context_tokens)
        self.system = system
        self.settings: dict[str, Value] = dict(settings or {})
        self.messages: list[dict[str, str]] = []
        self.dropped_messages = 0
        self._threads = threads
        self._doing = doing
        self._fallback: Fallback | None = None
        self._engine: Engine | None = None
        self._last: Generation | None = None
        self._drafted = self._accepted = 0  # tokens, of all answers
        self._question = ""
        self._stop_wanted = threading.Event()
        self._polite = polite
        self._read = read
        self._watch = IdleWatch(self._unload, unload_after_minutes, read if polite else Readings)
        self._unloaded = ""  # why
        self._needed_bytes = 0  # that the model took before it was unloaded

    def __enter__(self) -> Self:
        self._doing(f"looking at {self.path.name}")
        try:
            self._fallback = fallback_for(self.path)
            if self._fallback:
                _logger.info(self._fallback.note)
            self._running()
        finally:
            self._doing("")
        self._watch.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._watch.__exit__(kind, value, traceback)
        self._end()

    def ask(self, question: str, on_text: Listen) -> Generation:
        """Return the answer. on_text: hears every piece as it is written, and whether the piece is thought and not
        answer.

        Raises ThriftbitError if the question alone is too long, and EngineDiedError if the engine dies; what was said
        stays as it was before, and `retry` asks again."""
        self._question = question
        self._stop_wanted.clear()
        with self._watch.using():
            return self._answer(question, on_text)

    def _answer(self, question: str, on_text: Listen) -> Generation:
        try:
            answer = self._answer_of_engine(question, on_text)
        except TemplateError:
            self._give_up_template()
            answer = self._answer_of_engine(question, on_text)
        except EngineDiedError:
            self._end()
            raise
        finally:
            self._doing("")
        if answer.ended == STOPPED and not answer.text:
            return answer
        self._last = answer
        self._drafted += answer.drafted_tokens
        self._accepted += answer.accepted_tokens
        self.messages += [_said("user", question), _said("assistant", answer.text)]
        if answer.ended == "length" and "max-tokens" not in self.settings:
            _logger.info("The context is full, so the answer ends here. From now on the oldest turns are left out.")
        return answer

    def _answer_of_engine(self, question: str, on_text: Listen) -> Generation:
        engine = self._running()
        self._doing("reading")
        shown = self._room_for(engine, question)
        if self._stop_wanted.is_set():
            return Generation("", 0, 0.0, 0, 0.0, 0.0, ended=STOPPED)

        def hear(text: str, is_thought: bool) -> None:
            self._doing("")
            on_text(text, is_thought)

        return engine.stream(
            shown,
            hear,
            max_tokens=int(self.settings["max-tokens"]) if "max-tokens" in self.settings else None,
            thinks=bool(self.settings.get("think", False)),
            sampling=self._sampling(),
        )

    def retry(self, on_text: Listen) -> Generation:
        """Return another answer to the last question, which replaces the one it had."""
        if not self._question:
            raise UsageError("there is no question yet that could be asked again")
        before = list(self.messages)
        if self.messages and self.messages[-2]["content"] == self._question:
            del self.messages[-2:]
        kept = len(self.messages)
        try:
            return self.ask(self._question, on_text)
        finally:
            if len(self.messages) == kept:  # no other answer came
                self.messages = before

    def stop(self) -> None:
        """Ends the answer that is being written; from another thread."""
        self._stop_wanted.set()
        if self._engine is not None:
            self._engine.stop()

    def clear(self) -> None:
        """Forgets what was said; the system prompt and the settings stay."""
        self.restore([], self.system, self.settings)

    def restore(self, messages: list[dict[str, str]], system: str, settings: dict[str, Value]) -> None:
        """Goes on with what was said another time."""
        self.messages, self.system, self.settings = list(messages), system, dict(settings)
        self.dropped_messages, self._last = 0, None
        self._question = messages[-2]["content"] if messages else ""

    @property
    def context_tokens(self) -> int:
        return self.plan.context_tokens

    @property
    def is_polite(self) -> bool:
        return self._polite

    def go_at_full_speed(self) -> None:
        """From the next answer on other programs no longer come first. The model is loaded anew for that."""
        with self._watch.using():
            self._polite = False
            self._end()

    def defaults(self) -> dict[str, Value]:
        """Return what applies to each of SETTINGS that is not set, as far as llama.cpp tells."""
        with self._watch.using():
            known = self._running().defaults()
        found = {name: known.get(setting.sent_as) for name, setting in SETTINGS.items() if setting.sent_as}
        return {name: value for name, value in found.items() if isinstance(value, int | float)}

    def load_of_others(self) -> Callable[[], float]:
        """Return a function that tells how many cores other programs have kept busy since now, on average."""
        before = self._times()
        return lambda: cores_of_others(before, self._times())

    def _times(self) -> ProcessorTimes:
        times, own = psutil.cpu_times(), 0.0
        with suppress(psutil.Error):
            used = psutil.Process(self._engine.process_id).cpu_times() if self._engine else None
            own = used.user + used.system if used else 0.0
        busy = sum(getattr(times, name, 0.0) for name in ("user", "nice", "system", "irq", "softirq", "steal"))
        return ProcessorTimes(time.monotonic(), busy, own)

    def statistics(self) -> Statistics:
        with self._watch.using():
            return self._statistics()

    def _statistics(self) -> Statistics:
        last = self._last
        shown = self._shown(self.messages[self.dropped_messages :])
        threads = None
        if self._unloaded:  # asking how it is does not load it
            used = last.prompt_tokens + last.remembered_tokens + last.generated_tokens if last else 0
        else:
            try:
                used = self._running().count(shown) if shown else 0
                threads = self._running().threads_now()
            except TemplateError:
                self._give_up_template()
                return self._statistics()
            except EngineDiedError:
                self._end()
                raise
        return Statistics(
            tokens_per_second=last.tokens_per_second if last else 0.0,
            prompt_tokens_per_second=last.prompt_tokens_per_second if last else 0.0,
            memory_bytes=self._memory_bytes(),
            used_tokens=used,
            context_tokens=self.context_tokens,
            dropped_messages=self.dropped_messages,
            threads=self._engine.threads if self._engine else self._threads,
            threads_now=threads,
            polite=self._polite,
            unloaded=self._unloaded,
            plan=self.plan,
            drafted_tokens=self._drafted,
            accepted_tokens=self._accepted,
        )

    def _room_for(self, engine: Engine, question: str) -> list[dict[str, str]]:
        """Return what the model is shown, so that an answer fits; drops turns for it, and says so."""
        free = min(_ANSWER_TOKENS, int(_ANSWER_SHARE * self.context_tokens))
        first = self.dropped_messages
        while True:
            shown = self._shown([*self.messages[first:], _said("user", question)])
            tokens = engine.count(shown)
            if tokens + free <= self.context_tokens:
                break
            if first >= len(self.messages):
                raise ThriftbitError(
                    f"that is too long: {tokens:,} tokens, and the context holds {self.context_tokens:,}, of which "
                    f"{free:,} are for the answer. Shorten it, or start with a larger --context"
                )
            first += 2
        if first > self.dropped_messages:
            turns = (first - self.dropped_messages) // 2
            _logger.info(
                f"The context of {self.context_tokens:,} tokens is full: the model no longer sees the oldest "
                f"{'question and its answer' if turns == 1 else f'{turns} questions and their answers'}."
            )
            self.dropped_messages = first
        return shown

    def _shown(self, messages: list[dict[str, str]]) -> list[dict[str, str]]:
        return [_said("system", self.system), *messages] if self.system else messages

    def _sampling(self) -> dict[str, Any]:
        sampling: dict[str, Any] = {
            SETTINGS[name].sent_as: value for name, value in self.settings.items() if SETTINGS[name].sent_as
        }
        if self._fallback and self._fallback.ends:
            sampling["stop"] = list(self._fallback.ends)
        return sampling

    def _running(self) -> Engine:
        """Return the engine, started if it is not there."""
        if self._engine is None:
            if self._unloaded:
                if self._polite:
                    check_room(self.path.name, self._needed_bytes, self._read())
                _logger.info(f"The model was unloaded, as {self._unloaded}; loading it again.")
                self._unloaded = ""
            self._doing(f"loading {self.path.name}")
            self._engine = self._started()
            self._doing("")
        return self._engine

    def _started(self) -> Engine:
        template = self._fallback.template if self._fallback else None
        engine = Engine(
            self.path,
            plan=self.plan,
            threads=self._threads,
            chat_template=template,
            polite=self._polite,
        ).__enter__()
        self.plan = engine.plan  # which may be milder than what was asked for
        return engine

    def _give_up_template(self) -> None:
        """After the file's own template was too much for the engine, which has ended: from now on ours is used."""
        self._end()
        self._fallback = fallback_after(self.path, "has a chat template that was too much with this conversation")
        _logger.info(self._fallback.note)

    def _unload(self, reason: str) -> None:
        """Called by the watch's thread, while nothing else uses the engine."""
        if self._engine is not None:
            self._needed_bytes = self._memory_bytes() or 0
            self._unloaded = reason
            self._end()

    def _end(self) -> None:
        if self._engine is not None:
            self._engine.close()
            self._engine = None

    def _memory_bytes(self) -> int | None:
        try:
            return psutil.Process(self._engine.process_id).memory_info().rss if self._engine else None
        except psutil.Error:
            return None


def _said(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}
