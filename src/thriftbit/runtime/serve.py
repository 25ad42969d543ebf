"""A model for other programs: llama.cpp's own server, which speaks OpenAI's protocol and has a web page.

The server is the one that the engine's process brings anyway. So a crash of it is an error here, and what is not done
here is what llama.cpp does well: protocol, queue, page. In front of it stands a door of our own (`front_door.py`). The
door decides who is answered, and may unload the model.

Users share one context: each may take all of it while the others need none, and memory is that of one conversation.
Left out: encryption; whoever needs it across a network has a proxy for it.
"""

from __future__ import annotations

import logging
import secrets
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from thriftbit.errors import ThriftbitError
from thriftbit.machine.running_plan import RunningPlan
from thriftbit.runtime.admission import admission_at
from thriftbit.runtime.chat_template import fallback_after, fallback_for
from thriftbit.runtime.engine import Engine
from thriftbit.runtime.front_door import FrontDoor
from thriftbit.runtime.listening import check_free, listening_sockets
from thriftbit.runtime.polite import UNLOAD_AFTER_MINUTES, check_room, read_now

_logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.2
# What one request may bring: a text that fills the context, in the longest spelling that JSON has, and what programs
# send beside it. Far beyond that llama.cpp would spend minutes and gigabytes on reading what it then refuses.
_BODY_BYTES_PER_TOKEN, _LEAST_BODY_BYTES = 32, 1 << 20


class Server(Engine):
    """`with Server(path, host="127.0.0.1", port=8080) as server: server.wait()`

    context_tokens: shared by all. plan: as for Engine. users: how many are answered at the same time; others wait.
    api_key: without it nobody is answered; "" for none. polite: as for Engine, and a model that nobody uses is unloaded
    when memory gets short. unload_after_minutes: after so long without a question the model is unloaded; the next
    question loads it again. None for never. Both are logged. Inside `with`: address, "http://127.0.0.1:8080"; resting,
    whether the model is unloaded.
    Raises ThriftbitError, before anything is loaded, if the address cannot be had.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        host: str,
        port: int,
        api_key: str = "",
        context_tokens: int = 8192,
        plan: RunningPlan | None = None,
        users: int = 4,
        threads: int | None = None,
        chat_template: str | None = None,
        polite: bool = True,
        unload_after_minutes: float | None = UNLOAD_AFTER_MINUTES,
    ) -> None:
        super().__init__(
            path,
            context_tokens=context_tokens,
            plan=plan,
            threads=threads,
            chat_template=chat_template,
            polite=polite,
        )
        check_free(host, port)
        self._host, self._port, self._key = host, port, api_key
        self._polite, self._unload_after_minutes = polite, unload_after_minutes
        body_bytes = _LEAST_BODY_BYTES + _BODY_BYTES_PER_TOKEN * self.plan.context_tokens
        self._admission = admission_at(host, body_bytes)
        self._front: FrontDoor | None = None
        self._needed_bytes = 0  # what the model took when it had just been loaded
        self.inside_key = secrets.token_urlsafe()
        self._settings["serve"] = {"key": self.inside_key, "users": users}
        self.resting = False

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            listening = listening_sockets(self._host, self._port, with_ipv6=True)  # before the model: now it is ours
            for each in listening:
                stack.callback(each.close)
            host, port = listening[0].getsockname()[:2]
            self._load()
            self.address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
            self._front = FrontDoor(
                listening,
                self._admission,
                self,
                self._unload_after_minutes,
                key=self._key,
                stays=not self._polite and self._unload_after_minutes is None,
            )
            self._front.open()
            stack.pop_all()
        return self

    def wake(self) -> None:
        """Loads the model again. Raises ThriftbitError if it has no room any more."""
        if self._polite:
            check_room(self.path.name, self._needed_bytes, read_now())
        address = self.address
        self._load()
        self.address = address
        self.resting = False

    def rest(self) -> None:
        """Unloads the model: llama.cpp ends, and what asks for it is answered when it is back."""
        self.resting = True
        self._end_process()

    @property
    def has_own_template(self) -> bool:
        """Whether conversations are put by the file's own chat template"""
        return self._settings["chat_template"] is None

    def give_up_template(self) -> None:
        """Unloads the model, and loads it with another chat template when it is asked again."""
        fallback = fallback_after(self.path, "has a chat template that was too much with a conversation")
        _logger.info(fallback.note)
        self._settings["chat_template"] = fallback.template
        self.rest()

    def close(self) -> None:
        if self._front is not None:
            self._front.close()
            self._front = None
        super().close()

    def _load(self) -> None:
        super().__enter__()
        inside = urlsplit(self.address)
        assert inside.hostname is not None and inside.port is not None
        self.inside = (inside.hostname, inside.port)
        self._needed_bytes = self.memory().peak_bytes

    def wait(self) -> None:
        """Until the server ends, which it does by itself only when it dies: then raises ThriftbitError with the reason.
        Ctrl-C gets through."""
        while True:
            process = self._process
            try:
                process.wait(_POLL_SECONDS)
            except subprocess.TimeoutExpired:
                continue
            trying = self._front is not None and self._front.trying  # whose end the door deals with
            if self.resting or trying or process is not self._process:
                time.sleep(_POLL_SECONDS)
                continue
            raise ThriftbitError(f"{self.name}: the server ended: {self._last_words()}")

    def finish(self, patience_seconds: float) -> None:
        """Waits until nobody is being answered, but no longer than that."""
        deadline = time.monotonic() + patience_seconds
        while self.answering() and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)

    def answering(self) -> int:
        """Return how many questions are being answered or wait for that."""
        return self._front.questions if self._front else 0


@contextmanager
def serving(
    path: Path,
    *,
    host: str,
    port: int,
    api_key: str = "",
    plan: RunningPlan,
    users: int = 4,
    threads: int | None = None,
    polite: bool = True,
    unload_after_minutes: float | None = UNLOAD_AFTER_MINUTES,
) -> Iterator[Server]:
    """Yield the server, with another chat template where the file has none that can be used, which is logged. The
    parameters are those of Server."""
    _logger.info(f"Loading {path.name} ...")
    fallback = fallback_for(path)
    if fallback:
        _logger.info(fallback.note)
    with Server(
        path,
        host=host,
        port=port,
        api_key=api_key,
        plan=plan,
        users=users,
        threads=threads,
        chat_template=fallback.template if fallback else None,
        polite=polite,
        unload_after_minutes=unload_after_minutes,
    ) as server:
        yield server
