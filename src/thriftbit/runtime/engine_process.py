"""The process that llama.cpp lives in; `engine.py` starts it and says why.

Lines of JSON come in: the first one is the settings, every other a request, `{"do": what, ...}`. Each request is
answered by one line; an answer that is streamed, by several. A thread of its own reads the requests, so that `stop`
is heard while llama.cpp is at work. The process ends when its input does, and with its parent (`end_with_parent.py`).

llama.cpp is asked through the HTTP server that comes with the model. It listens on 127.0.0.1 only, on a port that the
system picks, and answers nobody without a key that this process invents. The Python bindings would not do: they have
no tokenizer, cannot stop an answer while its prompt is read, and block all other threads of Python until it is
written.
"""

from __future__ import annotations

import http.client
import json
import os
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any
from urllib.parse import urlsplit

from thriftbit.machine.running_plan import AHEAD_DRAFT, NGRAM_DRAFT, NO_DRAFT
from thriftbit.runtime.confined import limit_this_process
from thriftbit.runtime.end_with_parent import end_with_parent
from thriftbit.runtime.peak_memory import peak_memory_bytes
from thriftbit.runtime.polite_process import step_back, wait_asleep
from thriftbit.runtime.thread_limit import ThreadLimit

_ERRORS_ONLY = 1
_EXPERT_TENSORS, _MAIN_MEMORY = "ffn_(up|down|gate|gate_up)_(ch|)exps", "CPU"
_LOG_SECONDS = 2.0
_OUT_OF_MEMORY = "bad_alloc"  # as llama.cpp says it
_WORKING_BYTES = 4 << 30  # more than any number of requests takes, once the model has all of its memory

Answer = dict[str, Any]


class LoadedModel:
    """A loaded model. Its public methods answer requests."""

    def __init__(self, settings: dict[str, Any], tell: Callable[[Answer], None] = lambda answer: None) -> None:
        self._tell = tell
        self._has_own_template = settings.get("has_own_template", False)
        self._rendering_seconds = settings.get("rendering_seconds")
        self._limit = None
        if settings["polite"]:
            step_back()  # before llama.cpp starts threads, which inherit it
            self._limit = ThreadLimit()
            settings["threads"] = self._limit.threads_to_start(settings["threads"])
        import xllamacpp

        self._gpus = [device for device in xllamacpp.get_device_info() if device["type"].name.endswith("GPU")]
        self._bytes_before = peak_memory_bytes()
        self._key = secrets.token_urlsafe()
        parameters = _parameters(xllamacpp, settings, self._key)
        started = time.perf_counter()
        os.chdir(Path(settings["path"]).parent)  # the server tells clients the path it was given: only the name
        self._server = xllamacpp.Server(parameters)
        self._load_seconds = time.perf_counter() - started
        limit_this_process(_WORKING_BYTES, None)
        self._threads: int | None = settings["threads"]
        if self._limit and self._threads:
            self._limit.follow_load(self._threads)
        self._hanging_up = threading.Lock()
        self._socket: socket.socket | None = None  # of the answer that is being streamed
        self._streamed = 0  # its number
        self._stopped = 0  # of the last that was to stop

    def loaded(self) -> Answer:
        """Answers the settings"""
        gpus = [gpu["description"] for gpu in self._gpus]
        address = self._server.listening_address
        return {"load_seconds": self._load_seconds, "gpus": gpus, "address": address, "threads": self._threads}

    def complete(self, request: dict[str, Any]) -> Answer:
        return self._timed("/v1/completions", request)

    def chat(self, request: dict[str, Any]) -> Answer:
        if refused := self._rendered(request).get("error"):
            return {"error": refused["message"]}
        return self._timed("/v1/chat/completions", request)

    def stream(self, request: dict[str, Any], tell: Callable[[Answer], None]) -> Answer:
        """tell: is given every piece of the answer as it comes. Returns how it ended."""
        number = request.pop("answer")
        request |= {"stream": True, "timings_per_token": True}
        if refused := self._rendered(request).get("error"):
            return {"error": refused["message"]}
        started = time.perf_counter()
        ended = ""
        timings: dict[str, Any] = {}
        connection = self._connection()
        connection.connect()
        with self._hanging_up:
            self._socket, self._streamed = connection.sock, number
        try:
            for event in self._events(connection, request):
                if "error" in event:
                    return _only_the_message(event)
                timings = event.get("timings", timings)
                for choice in event["choices"]:
                    ended = choice["finish_reason"] or ended
                    for name in ("reasoning_content", "content"):
                        if choice["delta"].get(name):
                            tell({"piece": choice["delta"][name], "is_thought": name != "content"})
        except (OSError, http.client.HTTPException):
            if self._stopped != number:
                raise
        finally:
            with self._hanging_up:
                self._socket = None
            connection.close()
        if not ended and self._stopped != number:
            return {"error": "the answer broke off"}
        return {"ended": ended or "stopped", "timings": timings, "seconds": time.perf_counter() - started}

    def stop(self, number: int) -> None:
        """Called by another thread while `stream` is at work."""
        with self._hanging_up:
            self._stopped = number
            if self._socket is not None and self._streamed == number:
                with suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)

    def count(self, request: dict[str, Any]) -> Answer:
        prompt = self._rendered(request)
        if "error" in prompt:
            return _only_the_message(prompt)
        text = {"content": prompt["prompt"], "add_special": True, "parse_special": True}
        return {"tokens": len(self._post("/tokenize", text)["tokens"])}

    def _rendered(self, request: dict[str, Any]) -> Answer:
        """Return llama.cpp's answer: the conversation as the chat template puts it. If the file's own template takes
        too
        long, this process ends: a program that loops cannot be stopped otherwise. The parent is told before that it
        runs, so that it knows what happened."""
        if not self._has_own_template:
            return self._post("/apply-template", request)
        self._tell({"rendering": True})
        try:
            answer = self._post("/apply-template", request, self._rendering_seconds)
        except TimeoutError:
            os._exit(1)
        if _OUT_OF_MEMORY in str(answer.get("error", "")):
            os._exit(1)
        self._tell({"rendering": False})
        return answer

    def tokenize(self, request: dict[str, Any]) -> Answer:
        tokens = []
        for text in request.pop("texts"):
            answer = self._post("/tokenize", {"content": text, **request})
            if "error" in answer:
                return _only_the_message(answer)
            tokens.append(answer["tokens"])
        return {"tokens": tokens}

    def memory(self, request: dict[str, Any]) -> Answer:
        return {"peak_bytes": peak_memory_bytes(), "before_loading_bytes": self._bytes_before}

    def defaults(self, request: dict[str, Any]) -> Answer:
        """Return what llama.cpp does where nothing else is asked for, by
        its own names; the file may have a say in it."""
        connection = self._connection()
        connection.request("GET", "/props", headers=self._headers())
        answer: Answer = json.loads(connection.getresponse().read())
        connection.close()
        return {"defaults": answer.get("default_generation_settings", {}).get("params", {})}

    def threads(self, request: dict[str, Any]) -> Answer:
        return {"most": self._limit.threads if self._limit else None}

    def _events(self, connection: http.client.HTTPConnection, request: dict[str, Any]) -> Iterator[Answer]:
        """Yield what the server sends of an answer, piece by piece."""
        if self._stopped == self._streamed:
            return
        connection.request("POST", "/v1/chat/completions", json.dumps(request), self._headers())
        response = connection.getresponse()
        if response.status != http.HTTPStatus.OK:
            yield json.loads(response.read())
            return
        for line in response:
            event = line.removeprefix(b"data: ").strip()
            if event != line.strip() and event != b"[DONE]":
                yield json.loads(event)

    def _timed(self, path: str, request: Answer) -> Answer:
        """Return llama.cpp's answer, with the seconds until it came."""
        started = time.perf_counter()
        answer = self._post(path, request)
        seconds = time.perf_counter() - started
        return _only_the_message(answer) if "error" in answer else {**answer, "seconds": seconds}

    def _post(self, path: str, request: dict[str, Any], patience_seconds: float | None = None) -> Answer:
        connection = self._connection()
        connection.timeout = patience_seconds
        connection.request("POST", path, json.dumps(request), self._headers())
        answer: Answer = json.loads(connection.getresponse().read())
        connection.close()
        return answer

    def _connection(self) -> http.client.HTTPConnection:
        address = urlsplit(self._server.listening_address)
        assert address.hostname is not None
        return http.client.HTTPConnection(address.hostname, address.port)

    def _headers(self) -> dict[str, str]:
        return {"Content-Type": "application/json", "Authorization": f"Bearer {self._key}"}


def _parameters(xllamacpp: Any, settings: dict[str, Any], key: str) -> Any:
    parameters = xllamacpp.CommonParams()
    parameters.model.path = Path(settings["path"]).name
    _apply_plan(xllamacpp, parameters, **settings["plan"])
    parameters.n_parallel = 1
    parameters.verbosity = _ERRORS_ONLY
    if settings["threads"]:
        parameters.cpuparams.n_threads = settings["threads"]
        parameters.cpuparams_batch.n_threads = settings["threads"]
    if settings["polite"]:
        wait_asleep(parameters)
    if settings["chat_template"]:
        parameters.chat_template = settings["chat_template"]
    parameters.cache_ram_mib = 0  # one conversation at a time: earlier ones need not be kept, nor counted as its memory
    parameters.offline = True
    parameters.endpoint_slots = False
    parameters.api_keys = [key]
    if "serve" in settings:
        _serve(parameters, **settings["serve"])
    return parameters


def _apply_plan(
    xllamacpp: Any,
    parameters: Any,
    context_tokens: int,
    key_type: str,
    value_type: str,
    gpu_layers: int | None,
    expert_layers: int,
    draft: str,
) -> None:
    """As `RunningPlan` has them"""
    parameters.n_ctx = context_tokens
    parameters.cache_type_k = getattr(xllamacpp.ggml_type, f"GGML_TYPE_{key_type}")
    parameters.cache_type_v = getattr(xllamacpp.ggml_type, f"GGML_TYPE_{value_type}")
    if gpu_layers is not None:
        parameters.n_gpu_layers = gpu_layers
        parameters.fit_params = False  # it was found out before
    if expert_layers:
        layers = "|".join(map(str, range(expert_layers)))
        parameters.tensor_buft_overrides = rf"blk\.({layers})\.{_EXPERT_TENSORS}={_MAIN_MEMORY}"
    kinds, drafts = xllamacpp.common_speculative_type, parameters.speculative
    if draft == NGRAM_DRAFT:
        drafts.types = [kinds.COMMON_SPECULATIVE_TYPE_NGRAM_SIMPLE]
    elif draft == AHEAD_DRAFT:
        parameters.load_mtp = True
        drafts.types = [kinds.COMMON_SPECULATIVE_TYPE_DRAFT_MTP]
    elif draft != NO_DRAFT:
        drafts.types = [kinds.COMMON_SPECULATIVE_TYPE_DRAFT_SIMPLE]
        drafts.draft.mparams.path = draft


def _serve(parameters: Any, key: str, users: int) -> None:
    """For other programs, through the front door, which alone has the key."""
    parameters.api_keys = [key]
    parameters.n_parallel = users
    parameters.kv_unified = True  # one context for all
    parameters.endpoint_metrics = True
    parameters.model_alias = {Path(parameters.model.path).name}


def _only_the_message(answer: Answer) -> Answer:
    return {"error": answer["error"]["message"]}


def main() -> None:
    end_with_parent(int(sys.argv[1]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then closes our input
    # llama.cpp may print; the answers keep the standard output to themselves, and prints join the log
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def tell(answer: Answer) -> None:
        print(json.dumps(answer), file=answers, flush=True)

    requests: SimpleQueue[dict[str, Any]] = SimpleQueue()
    loaded: list[LoadedModel] = []  # none or one
    threading.Thread(target=_listen, args=(requests, loaded), daemon=True).start()
    while True:
        request = requests.get()
        try:
            if not loaded:
                loaded.append(LoadedModel(request, tell))
                tell(loaded[0].loaded())
                continue
            do = request.pop("do")
            tell(loaded[0].stream(request, tell) if do == "stream" else getattr(loaded[0], do)(request))
        except Exception as error:
            if not loaded:
                _wait_for_the_log()
                # why llama.cpp refuses a file stands in the log alone; what Python raises says more than its own text
                tell({"error": "", "why": f"{type(error).__name__}: {error}"})
                continue
            tell({"error": str(error)})


def _wait_for_the_log() -> None:
    """A thread of llama.cpp's writes it, somewhat later; on a busy computer after the error has been told."""
    deadline, size = time.monotonic() + _LOG_SECONDS, 0
    while time.monotonic() < deadline:
        time.sleep(_LOG_SECONDS / 20)
        before, size = size, os.fstat(sys.stderr.fileno()).st_size
        if size and size == before:
            return


def _listen(requests: SimpleQueue[dict[str, Any]], loaded: list[LoadedModel]) -> None:
    for line in sys.stdin:
        request = json.loads(line)
        if request.get("do") != "stop":
            requests.put(request)
        elif loaded:
            loaded[0].stop(request["answer"])
    os._exit(0)  # whoever wanted an answer is gone, and llama.cpp holds nothing that would need saving


if __name__ == "__main__":
    main()
