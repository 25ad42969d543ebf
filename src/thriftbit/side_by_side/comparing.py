"""The verb: files in, a page at an address.

`with thriftbit.compare(["model-BF16.gguf", "model-Q4_K_M.gguf"]) as page: print(page.address); page.wait()`
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from thriftbit.advice.ready import fit_together
from thriftbit.machine.running_plan import RunningPlan
from thriftbit.runtime.admission import admission_at
from thriftbit.runtime.http_server import HttpServer
from thriftbit.runtime.listening import check_free, listening_sockets
from thriftbit.runtime.polite import UNLOAD_AFTER_MINUTES
from thriftbit.side_by_side.access import MOST_BODY_BYTES, Guarded, Keys
from thriftbit.side_by_side.application import application
from thriftbit.side_by_side.lineup import Contender, lineup
from thriftbit.side_by_side.session import Session
from thriftbit.side_by_side.writing import Manner, Writers

_logger = logging.getLogger(__name__)

HOST = "127.0.0.1"
DEFAULT_CONTEXT_TOKENS = 4096
_POLL_SECONDS = 0.2


class Page:
    """address: for people, with the key in it. lineup: the original first. manner: in which the models answer."""

    def __init__(self, session: Session, port: int, keys: Keys, manner: Manner) -> None:
        self.session = session
        self.lineup: tuple[Contender, ...] = session.lineup
        self.manner = manner
        self._keys = keys
        self._place = f"http://{HOST}:{port}/"
        self.address = f"{self._place}#key={keys.key}"

    def address_for_once(self) -> str:
        """Return a key for a browser whose command line carries it, where others may read it."""
        return f"{self._place}#ticket={self._keys.ticket()}"

    def wait(self) -> None:
        """Until Ctrl-C, which gets through."""
        while True:
            threading.Event().wait(_POLL_SECONDS)

    def results(self) -> list[str]:
        """Return what the votes of this session say, a sentence for each pair."""
        return self.session.results()


@contextmanager
def compare(
    paths: Sequence[str | Path],
    *,
    port: int = 0,
    context_tokens: int = DEFAULT_CONTEXT_TOKENS,
    plans: Sequence[RunningPlan] | None = None,
    threads: int | None = None,
    at_once: bool = False,
    polite: bool = True,
    unload_after_minutes: float | None = UNLOAD_AFTER_MINUTES,
) -> Iterator[Page]:
    """Yield a page on this computer alone, on which all answer the same questions, until the end of `with`

    paths: two GGUF files or more. port: 0 takes one that is free. context_tokens: of each. plans: how each runs, its
    context included; without them, with what llama.cpp does by itself. at_once: they write at the
    same time, if they fit into memory together. polite, unload_after_minutes: as in `Conversation`.
    Raises ThriftbitError for what is missing, damaged or does not fit."""
    files = [Path(path) for path in paths]
    check_free(HOST, port)
    contenders = lineup(files)
    planned = list(plans or [RunningPlan(context_tokens)] * len(files))
    plan_of = dict(zip(files, planned, strict=True))
    together = fit_together(files, planned)
    manner: Manner = "one loaded at a time" if not together else "at once" if at_once else "in turn"
    if not together:
        _logger.info("They do not fit into memory together: each is loaded when it answers, and let go after it.")
    with ExitStack() as stack:
        listening = listening_sockets(HOST, port)  # before the models: nobody else gets the port now
        for each in listening:
            stack.callback(each.close)
        writers = stack.enter_context(
            Writers(
                [file.path for file in contenders],
                manner=manner,
                plans=[plan_of[file.path] for file in contenders],
                threads=threads,
                polite=polite,
                unload_after_minutes=unload_after_minutes,
            )
        )
        session = Session(contenders, writers, manner)
        if session.bad_lines:
            _logger.info(f"Note: {session.bad_lines} lines of the file of votes are no votes, and are passed over.")
        keys = Keys()
        server = HttpServer(listening, Guarded(application(session, keys), keys), admission_at(HOST, MOST_BODY_BYTES))
        server.open()
        try:
            yield Page(session, listening[0].getsockname()[1], keys, manner)
        finally:
            session.close()
            server.close()
