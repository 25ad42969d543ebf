"""One question, answered by several models; each is a conversation of its own, in a process of its own.

By default they write one after the other. At the same time they would share the processor and the bandwidth of
memory, and the speeds shown would be those of a busy computer. All stay loaded if they fit into memory together;
otherwise each is loaded for its answer and unloaded after it.

Every question stands for itself, and no model sees earlier ones. After the first answer that differs, the models
would be asked different things.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from thriftbit.errors import ThriftbitError
from thriftbit.machine.running_plan import RunningPlan
from thriftbit.runtime.chat_settings import Value
from thriftbit.runtime.conversation import Conversation
from thriftbit.runtime.engine import STOPPED
from thriftbit.runtime.polite import UNLOAD_AFTER_MINUTES

_logger = logging.getLogger(__name__)

Manner = Literal["in turn", "at once", "one loaded at a time"]


@dataclass(frozen=True)
class AnswerNumbers:
    """Numbers of one answer. first_text_seconds: from the question until the first text, by our clock; the model was
    loaded before. memory_bytes: what the engine's process holds; None if it is gone."""

    tokens: int
    tokens_per_second: float
    first_text_seconds: float | None
    memory_bytes: int | None


@dataclass(frozen=True)
class Written:
    """text: the answer, or what there was of it. ended: "stop" if the model ended it, "length" if there was no more
    room, "stopped" by the user, or "failed"."""

    text: str
    ended: str
    error: str = ""
    numbers: AnswerNumbers | None = None


class Writers:
    """`with Writers(paths, manner="in turn", ...) as writers: writers.write([0, 1], question, settings, ...)`"""

    def __init__(
        self,
        paths: Sequence[Path],
        *,
        manner: Manner,
        plans: Sequence[RunningPlan],
        threads: int | None = None,
        polite: bool = True,
        unload_after_minutes: float | None = UNLOAD_AFTER_MINUTES,
    ) -> None:
        self._manner = manner
        self._stopped = threading.Event()
        self._loaded: set[int] = set()
        self._conversations = [
            Conversation(
                path,
                plan=plan,
                threads=threads,
                polite=polite,
                unload_after_minutes=unload_after_minutes,
            )
            for path, plan in zip(paths, plans, strict=True)
        ]

    def __enter__(self) -> Self:
        if self._manner != "one loaded at a time":
            try:
                for model in range(len(self._conversations)):
                    self._load(model)
            except BaseException:
                self.close()
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        for model in range(len(self._conversations)):
            self._let_go(model)

    def write(
        self,
        models: Sequence[int],
        question: str,
        settings: Mapping[str, Value],
        *,
        on_start: Callable[[int], None],
        on_text: Callable[[int, str], None],
        on_end: Callable[[int, Written], None],
    ) -> None:
        """models: their numbers, in the order in which they answer. The three functions get the same numbers, perhaps
        from several threads. Returns when all have ended; what goes wrong is in `Written`, and not raised."""

        def one(model: int) -> None:
            on_start(model)
            on_end(model, self._one(model, question, settings, lambda text: on_text(model, text)))

        with ThreadPoolExecutor(len(models) if self._manner == "at once" else 1) as workers:
            list(workers.map(one, models))
        self._stopped.clear()

    def stop(self) -> None:
        """Ends the answers to the present question, those that are being written and those still to come."""
        self._stopped.set()
        for conversation in self._conversations:
            conversation.stop()

    def _one(self, model: int, question: str, settings: Mapping[str, Value], on_text: Callable[[str], None]) -> Written:
        conversation = self._conversations[model]
        texts: list[str] = []
        began = first = 0.0

        def listen(text: str, is_thought: bool) -> None:
            nonlocal first
            first = first or time.perf_counter()
            if self._stopped.is_set():  # while the question was being put, when there was nothing to stop yet
                conversation.stop()
            if not is_thought:
                texts.append(text)
                on_text(text)

        if self._stopped.is_set():
            return Written("", STOPPED)
        try:
            conversation.restore([], conversation.system, dict(settings))
            self._load(model)
            began = time.perf_counter()
            answer = conversation.ask(question, listen)
            known = conversation.statistics()
            numbers = AnswerNumbers(
                answer.generated_tokens,
                answer.tokens_per_second,
                first - began if first else None,
                known.memory_bytes,
            )
            return Written("".join(texts), answer.ended, numbers=numbers)
        except ThriftbitError as error:
            self._let_go(model)  # its engine may have died, and is started again for the next question
            return Written("".join(texts), "failed", str(error))
        finally:
            if self._manner == "one loaded at a time":
                self._let_go(model)

    def _load(self, model: int) -> None:
        if model not in self._loaded:
            self._conversations[model].__enter__()
            self._loaded.add(model)

    def _let_go(self, model: int) -> None:
        self._conversations[model].__exit__(None, None, None)
        self._loaded.discard(model)
