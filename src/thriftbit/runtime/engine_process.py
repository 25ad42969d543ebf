"""The process that llama.cpp lives in; `engine.py` starts it and says why.

Lines of JSON: the first one in is the settings, every other a request, `{"do": what, ...}`; each is answered by one
line out. It ends when its input does.

llama.cpp's tokenizer is reached only through the HTTP server that comes with the model. It listens on the loopback
interface alone, on a port that the system picks, and answers nobody without a key that this process invents and keeps.
"""

from __future__ import annotations

import http.client
import json
import os
import secrets
import signal
import sys
import time
from typing import Any
from urllib.parse import urlsplit

from thriftbit.runtime.peak_memory import peak_memory_bytes

_ERRORS_ONLY = 1

Answer = dict[str, Any]


class Model:
    """A loaded model. Its public methods answer requests."""

    def __init__(self, settings: dict[str, Any]) -> None:
        import xllamacpp

        self._gpus = [device for device in xllamacpp.get_device_info() if device["type"].name.endswith("GPU")]
        self._bytes_before = peak_memory_bytes()
        self._key = secrets.token_urlsafe()
        parameters = _parameters(xllamacpp, settings, self._key)
        started = time.perf_counter()
        self._server = xllamacpp.Server(parameters)
        self._load_seconds = time.perf_counter() - started

    def loaded(self) -> Answer:
        """Answers the settings"""
        return {"load_seconds": self._load_seconds, "gpus": [gpu["description"] for gpu in self._gpus]}

    def complete(self, request: dict[str, Any]) -> Answer:
        return _timed(self._server.handle_completions, request)

    def chat(self, request: dict[str, Any]) -> Answer:
        return _timed(self._server.handle_chat_completions, request)

    def tokenize(self, request: dict[str, Any]) -> Answer:
        address = urlsplit(self._server.listening_address)
        assert address.hostname is not None
        connection = http.client.HTTPConnection(address.hostname, address.port)
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self._key}"}
        tokens = []
        for text in request.pop("texts"):
            connection.request("POST", "/tokenize", json.dumps({"content": text, **request}), headers)
            answer = json.loads(connection.getresponse().read())
            if "error" in answer:
                return _only_the_message(answer)
            tokens.append(answer["tokens"])
        return {"tokens": tokens}

    def memory(self, request: dict[str, Any]) -> Answer:
        return {"peak_bytes": peak_memory_bytes(), "before_loading_bytes": self._bytes_before}


def _parameters(xllamacpp: Any, settings: dict[str, Any], key: str) -> Any:
    parameters = xllamacpp.CommonParams()
    parameters.model.path = settings["path"]
    parameters.n_ctx = settings["context_tokens"]
    parameters.n_parallel = 1
    parameters.verbosity = _ERRORS_ONLY
    if settings["threads"]:
        parameters.cpuparams.n_threads = settings["threads"]
        parameters.cpuparams_batch.n_threads = settings["threads"]
    parameters.cache_ram_mib = 0  # one conversation at a time: earlier ones need not be kept, nor counted as its memory
    parameters.offline = True
    parameters.endpoint_slots = False
    parameters.api_keys = [key]
    return parameters


def _timed(handle: Any, request: dict[str, Any]) -> Answer:
    """-> llama.cpp's answer, with the seconds until it came"""
    started = time.perf_counter()
    answer: Answer = handle(request)
    seconds = time.perf_counter() - started
    return _only_the_message(answer) if "error" in answer else {**answer, "seconds": seconds}


def _only_the_message(answer: Answer) -> Answer:
    return {"error": answer["error"]["message"]}


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then closes our input
    # llama.cpp may print; the answers keep the standard output to themselves, and prints join the log
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    model: Model | None = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if model is None:
                model = Model(request)
                answer = model.loaded()
            else:
                answer = getattr(model, request.pop("do"))(request)
        except Exception as error:
            answer = {"error": str(error) if model else ""}  # why it could not load stands in the log alone
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
