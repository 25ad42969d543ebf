"""Runs a GGUF through llama.cpp.

llama.cpp is C++ that reads files from anywhere. On a bad file it may abort, and an abort ends the process. So it runs
in a process of its own (`engine_process.py`), and our process only sees an error. The two exchange lines of JSON
through pipes. A pipe costs microseconds a request, which is nothing beside a token, and the system counts the memory
of each process by itself.

Left out until something needs it: logits.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import json
import logging
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from thriftbit.errors import ThriftbitError, shown
from thriftbit.machine.running_plan import AHEAD_DRAFT, NGRAM_DRAFT, NO_DRAFT, RunningPlan
from thriftbit.runtime.chat_template import fallback_for
from thriftbit.runtime.drafts import check_draft
from thriftbit.runtime.engine_watch import EngineWatch, explained_bytes
from thriftbit.runtime.generation import EngineMemory, Generation
from thriftbit.runtime.polite_process import SHORT_WAITING

_logger = logging.getLogger(__name__)

CPU = "CPU"
_BUILT_IN_DRAFTS = (NO_DRAFT, NGRAM_DRAFT, AHEAD_DRAFT)
STOPPED = "stopped"
RENDERING_SECONDS = 10.0  # for a file's chat template to put a conversation, which takes milliseconds
_LONGEST_WORDS = 300  # characters of a log that stand in an error
# On Linux a process that ends with its parent ends with the thread that started it: so one that lives as long as we do
_starter = ThreadPoolExecutor(1, thread_name_prefix="engine-starter")


class EngineDiedError(ThriftbitError):
    """llama.cpp's process is gone; a new Engine can be started."""


class TemplateError(EngineDiedError):
    """llama.cpp cannot use the file's own chat template; or it was too much for llama.cpp with this conversation, and
    the process was ended. A new Engine can be started, with another template."""


class Engine:
    """A GGUF, loaded: `with Engine(path) as engine: engine.generate("Once upon a time")`.

    context_tokens: room for prompt and answer together. plan: how it runs, its context included; without one, with what
    llama.cpp does by itself. A plan that llama.cpp cannot load falls back to a milder one, and says so. threads:
    llama.cpp's own choice if None. chat_template: in Jinja, in place of the file's own; None for the file's own, if it
    can be used (`chat_template.py`). polite: other programs come first (`polite_process.py`); not for measuring.
    Inside `with`: plan, as it runs; threads, as above, of which at times fewer compute if polite (`threads_now`);
    load_seconds, from starting llama.cpp until it takes a prompt; device, "CPU" or the names of the GPUs that llama.cpp
    uses; process_id, of the process it runs in.
    Raises ThriftbitError where llama.cpp cannot be had or refuses the file, EngineDiedError where it dies or is ended
    because it takes more memory than the model can explain, TemplateError where the file's chat template did that.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        context_tokens: int = 2048,
        plan: RunningPlan | None = None,
        threads: int | None = None,
        chat_template: str | None = None,
        polite: bool = False,
    ) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise ThriftbitError(f"{self.path}: no such file")
        try:
            self.path.name.encode()
        except UnicodeEncodeError:
            raise ThriftbitError(
                f"{shown(str(path))}: the name is not valid UTF-8, and llama.cpp opens no such file; rename it"
            ) from None
        if importlib.util.find_spec("xllamacpp") is None:
            raise ThriftbitError("llama.cpp is not installed here, so no model can be run; try: pip install xllamacpp")
        self.name = str(path)  # in errors
        self.plan = plan or RunningPlan(context_tokens)
        self._settings: dict[str, Any] = {
            "path": str(self.path),
            "chat_template": chat_template,
            "polite": polite,
            "threads": threads,
        }
        self._answers = 0  # how many were begun; a late wish to stop one does not stop the next
        self._is_rendering = False  # the file's own chat template
        self._writing = threading.Lock()

    def __enter__(self) -> Self:
        if self.plan.draft not in _BUILT_IN_DRAFTS:
            check_draft(self.path, Path(self.plan.draft))
        others = self.plan.milder()
        while True:
            try:
                return self._load_once()
            except TemplateError:
                raise
            except ThriftbitError as error:
                milder = next(others, None)
                if milder is None:
                    raise
                _logger.info(f"It does not run with {self.plan.describe()} ({error}). Trying {milder.describe()}.")
                self.plan = milder

    def _load_once(self) -> Self:
        most_bytes = explained_bytes(self.path, self.plan.context_tokens)
        settings = self._settings | {"plan": asdict(self.plan), "has_own_template": False}
        settings["rendering_seconds"] = RENDERING_SECONDS
        if settings["chat_template"] is None:
            fallback = fallback_for(self.path)
            if fallback and fallback.is_instead:
                raise TemplateError(fallback.note)
            settings |= {"chat_template": fallback.template if fallback else None, "has_own_template": fallback is None}
        self._log = tempfile.TemporaryFile("a+b")  # noqa: SIM115 - closed with the process; appending, as both of us move one file position
        self._process = self._started()
        self.process_id = self._process.pid
        self._watch = EngineWatch(self._process, most_bytes)
        try:
            loaded = self._ask(settings)
        except BaseException:
            self._end_process()
            raise
        self._watch.loaded()
        self.load_seconds: float = loaded["load_seconds"]
        self.address: str = loaded["address"]
        self.threads: int | None = loaded["threads"]
        self.device = ", ".join(loaded["gpus"]) or CPU
        return self

    def _started(self) -> subprocess.Popen[bytes]:
        starting = _starter.submit(self._start)
        try:
            return starting.result()
        except BaseException:  # Ctrl-C while it was being started
            starting.add_done_callback(lambda started: started.result().kill())
            raise

    def _start(self) -> subprocess.Popen[bytes]:
        polite = self._settings["polite"]
        return subprocess.Popen(
            # -P: nothing in the current directory may pass for a module of ours
            [sys.executable, "-P", "-m", "thriftbit.runtime.engine_process", str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={**os.environ, **SHORT_WAITING} if polite else None,
            start_new_session=polite,  # for a niceness that counts between sessions
        )

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def generate(
        self,
        prompt: str | Sequence[int],
        *,
        max_tokens: int = 128,
        temperature: float = 0.8,
        seed: int | None = None,
        ignore_end: bool = False,
        read_anew: bool = False,
    ) -> Generation:
        """Continues `prompt`, which is text or token ids. temperature 0 always takes the likeliest token; a seed makes
        chance repeatable. ignore_end: goes on until `max_tokens`, whatever the model thinks. read_anew: reads all of
        the prompt, even where it begins like the one before."""
        request = {"prompt": prompt, "ignore_eos": ignore_end, "cache_prompt": not read_anew}
        return self._generate("complete", request, max_tokens, temperature, seed)

    def chat(
        self, message: str, *, max_tokens: int = 128, temperature: float = 0.8, seed: int | None = None
    ) -> Generation:
        """Answers a message, put as the model's own chat template puts it (llama.cpp's default if it has none). A model
        that can think first is asked not to."""
        messages = [{"role": "user", "content": message}]
        request = {"messages": messages, "chat_template_kwargs": {"enable_thinking": False}}
        return self._generate("chat", request, max_tokens, temperature, seed)

    def stream(
        self,
        messages: Sequence[Mapping[str, str]],
        on_text: Callable[[str, bool], None],
        *,
        max_tokens: int | None = None,
        thinks: bool = False,
        sampling: Mapping[str, Any] | None = None,
    ) -> Generation:
        """Answers a conversation, telling what it writes as it does so.

        messages: {"role": "system" | "user" | "assistant", "content": text}, the oldest first. on_text: is given a
        piece of text, and whether it is thought and not yet answer. max_tokens: as long as there is room, if None.
        thinks: whether a model that can think first is asked to. sampling: llama.cpp's names ("top_k") and values.
        """
        self._answers += 1
        request = {
            "messages": [dict(message) for message in messages],
            "max_tokens": -1 if max_tokens is None else max_tokens,
            "chat_template_kwargs": {"enable_thinking": thinks},
            **(sampling or {}),
        }
        answer = self._ask({"do": "stream", "answer": self._answers, **request})
        texts: tuple[list[str], list[str]] = ([], [])
        try:
            while "piece" in answer:
                texts[answer["is_thought"]].append(answer["piece"])
                on_text(answer["piece"], answer["is_thought"])
                answer = self._answer()
        except BaseException as error:
            if not isinstance(error, ThriftbitError):  # the listener's: the rest of the lines is not for the next one
                self.stop()
                while "piece" in self._answer():
                    pass
            raise
        timings = answer["timings"]
        return Generation(
            text="".join(texts[False]),
            prompt_tokens=timings.get("prompt_n", 0),
            prompt_seconds=timings.get("prompt_ms", 0.0) / 1000,
            generated_tokens=timings.get("predicted_n", 0),
            generation_seconds=timings.get("predicted_ms", 0.0) / 1000,
            seconds=answer["seconds"],
            thought="".join(texts[True]),
            ended=answer["ended"],
            remembered_tokens=timings.get("cache_n", 0),
            drafted_tokens=timings.get("draft_n", 0),
            accepted_tokens=timings.get("draft_n_accepted", 0),
        )

    def stop(self) -> None:
        """Ends the answer that `stream` is at, which returns what there is; nothing happens if it is at none. For other
        threads: a signal handler starts one, as it may have interrupted a request that was being sent."""
        self._send({"do": "stop", "answer": self._answers})

    def count(self, messages: Sequence[Mapping[str, str]]) -> int:
        """Return tokens that a conversation takes, put as the chat template puts it."""
        tokens: int = self._ask({"do": "count", "messages": [dict(message) for message in messages]})["tokens"]
        return tokens

    def tokenize(self, texts: Sequence[str], *, add_special: bool, parse_special: bool = False) -> list[list[int]]:
        """Return token ids of each text, by llama.cpp's own tokenizer. add_special: with the tokens that the model has
        at the beginning and end of a text. parse_special: reads "<|endoftext|>" in a text as the token of that name.
        (`Tokenizer` does the same without loading a model's weights.)."""
        request = {"texts": list(texts), "add_special": add_special, "parse_special": parse_special}
        tokens: list[list[int]] = self._ask({"do": "tokenize", **request})["tokens"]
        return tokens

    def likeliest(self, prompt: Sequence[int], count: int) -> dict[int, float]:
        """prompt: token ids. Returns the log-probabilities of the `count` tokens that are the likeliest after it."""
        # llama.cpp tells nothing of a token that ends the text or is a part of a character, so it is made to write
        # another one. The probabilities are those before.
        (*_, plain) = self.tokenize(["a"], add_special=False)[0]
        request = {"prompt": list(prompt), "max_tokens": 1, "temperature": 0.0, "logprobs": count}
        answer = self._ask({"do": "complete", **request, "logit_bias": {str(plain): 1000.0}})
        found = answer["choices"][0].get("logprobs")
        if not found or not found.get("content"):
            raise ThriftbitError(f"{self.name}: llama.cpp gives no probabilities for the next token")
        tokens = found["content"][0]["top_logprobs"]
        return {int(token["id"]): float(token["logprob"]) for token in tokens}

    def memory(self) -> EngineMemory:
        return EngineMemory(**self._ask({"do": "memory"}))

    def defaults(self) -> dict[str, Any]:
        """Return llama.cpp's settings of sampling for this model, by its own names ("top_k"), where none is given."""
        found: dict[str, Any] = self._ask({"do": "defaults"})["defaults"]
        return found

    def threads_now(self) -> int | None:
        """Return the number of threads that it computes with now: `threads`, or fewer if polite, beside other programs
        (`thread_limit.py`)."""
        most: int | None = self._ask({"do": "threads"})["most"]
        return min(most, self.threads) if most and self.threads else self.threads

    def close(self) -> None:
        """Ends llama.cpp at once: it holds nothing that would need saving."""
        self._end_process()

    def _end_process(self) -> None:
        process = self._process
        assert process.stdin is not None and process.stdout is not None
        self._watch.end()
        process.kill()
        process.wait()
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        process.stdout.close()
        self._log.close()

    def _generate(
        self, do: str, request: dict[str, Any], max_tokens: int, temperature: float, seed: int | None
    ) -> Generation:
        chance = {} if seed is None else {"seed": seed}
        answer = self._ask({"do": do, "max_tokens": max_tokens, "temperature": temperature, **chance, **request})
        timings, choice = answer["timings"], answer["choices"][0]
        message = choice.get("message", {})
        return Generation(
            text=choice.get("text") or message.get("content") or message.get("reasoning_content") or "",
            prompt_tokens=timings["prompt_n"],
            prompt_seconds=timings["prompt_ms"] / 1000,
            generated_tokens=timings["predicted_n"],
            generation_seconds=timings["predicted_ms"] / 1000,
            seconds=answer["seconds"],
            drafted_tokens=timings.get("draft_n", 0),
            accepted_tokens=timings.get("draft_n_accepted", 0),
        )

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        self._send(request)
        return self._answer()

    def _send(self, request: dict[str, Any]) -> None:
        """Whole, which no other thread's comes into the middle of."""
        assert self._process.stdin is not None
        line = json.dumps(request).encode() + b"\n"
        # if it is gone, it says why when it is asked for an answer; a closed one has nothing left to stop
        with contextlib.suppress(BrokenPipeError, ValueError), self._writing:
            self._process.stdin.write(line)
            self._process.stdin.flush()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line.endswith(b"\n"):
            words = f"{self.name}: llama.cpp could not run it: {self._last_words()}"
            raise TemplateError(words) if self._is_rendering else EngineDiedError(words)
        answer: dict[str, Any] = json.loads(line)
        if "rendering" in answer:
            self._is_rendering = answer["rendering"]
            return self._answer()
        if "error" in answer:
            reason = answer["error"] or self._logged_error(answer["why"])
            raise ThriftbitError(f"{self.name}: llama.cpp could not run it: {reason}")
        return answer

    def _last_words(self) -> str:
        status = self._process.wait()
        if self._watch.reason:
            return self._watch.reason
        if self._is_rendering:
            return "its chat template took too long with this conversation, or crashed"
        if status >= 0:
            return f"it ended with status {status}{self._last_logged()}"
        words = f"it ended with signal {-status}"
        if -status == getattr(signal, "SIGKILL", None):
            return f"{words} (killed, perhaps for want of memory)"
        assertion = re.search(rb"GGML_ASSERT\(.*\) failed", self._logged())
        return f"{words}: {assertion[0].decode(errors='replace')}" if assertion else words

    def _logged_error(self, raised: str) -> str:
        """Why the model did not load: the first error logged, without its clock and function, or else what Python
        raised. (What `common_fit_params` says is about memory it only hoped for.)"""
        found = re.search(rb"^[\d.]+ E (?!common_fit_params)(?:\S+ +)?\S+: +(.+)$", self._logged(), re.MULTILINE)
        return found[1].decode(errors="replace") if found else raised or "it gives no reason"

    def _last_logged(self) -> str:
        """Return ": ImportError: ...", the last line logged, if there is one."""
        lines = self._logged().decode(errors="replace").strip().splitlines()
        return f": {lines[-1][:_LONGEST_WORDS]}" if lines else ""

    def _logged(self) -> bytes:
        self._log.seek(0)
        return self._log.read()


def engine_version() -> str:
    """Return what a row calls the engine's version: llama.cpp is known by the package that brings it."""
    return f"xllamacpp {importlib.metadata.version('xllamacpp')}"
