"""Runs a GGUF through llama.cpp.

llama.cpp is C++ that reads files from anywhere: on a bad one it may abort, and an abort ends the process. So it runs in
a process of its own (`engine_process.py`), spoken to in lines of JSON, and all that can happen to us is an error. A
pipe costs microseconds a request, nothing beside a token. Left out until something needs it: streaming, chat templates,
logits.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from thriftbit.errors import ThriftbitError


@dataclass(frozen=True)
class Generation:
    """What the model wrote, and llama.cpp's own clock: reading the prompt (prefill) and writing (decode) apart."""

    text: str
    prompt_tokens: int
    prompt_seconds: float
    generated_tokens: int
    generation_seconds: float

    @property
    def tokens_per_second(self) -> float:
        return self.generated_tokens / self.generation_seconds if self.generation_seconds else 0.0


class Engine:
    """A GGUF, loaded: `with Engine(path) as engine: engine.generate("Once upon a time")`.

    context_tokens: room for prompt and answer together. threads: llama.cpp's own choice if None.
    Raises ThriftbitError where llama.cpp cannot be had, refuses the file or dies.
    """

    def __init__(self, path: str | Path, *, context_tokens: int = 2048, threads: int | None = None) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise ThriftbitError(f"{self.path}: no such file")
        if importlib.util.find_spec("xllamacpp") is None:
            raise ThriftbitError("llama.cpp is not installed here, so no model can be run; try: pip install xllamacpp")
        self._settings = {"path": str(self.path), "context_tokens": context_tokens, "threads": threads}

    def __enter__(self) -> Self:
        self._log = tempfile.TemporaryFile("a+b")  # appending, as both of us move one file position
        # -P: nothing in the current directory may pass for a module of ours
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "thriftbit.runtime.engine_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
        )
        try:
            self._ask(self._settings)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def generate(
        self, prompt: str, *, max_tokens: int = 128, temperature: float = 0.8, seed: int | None = None
    ) -> Generation:
        """Continues `prompt`. temperature 0 always takes the likeliest token; a seed makes chance repeatable."""
        request: dict[str, Any] = {"prompt": prompt, "max_tokens": max_tokens, "temperature": temperature}
        if seed is not None:
            request["seed"] = seed
        answer = self._ask(request)
        timings = answer["timings"]
        return Generation(
            text=answer["choices"][0]["text"],
            prompt_tokens=timings["prompt_n"],
            prompt_seconds=timings["prompt_ms"] / 1000,
            generated_tokens=timings["predicted_n"],
            generation_seconds=timings["predicted_ms"] / 1000,
        )

    def close(self) -> None:
        """Ends llama.cpp at once: it holds nothing that would need saving."""
        process = self._process
        assert process.stdin is not None and process.stdout is not None
        process.kill()
        process.wait()
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        process.stdout.close()
        self._log.close()

    def _ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # if it is gone, it says why below
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        line = self._process.stdout.readline()
        answer: dict[str, Any] = json.loads(line) if line else {"error": self._last_words()}
        if "error" in answer:
            raise ThriftbitError(f"{self.path}: llama.cpp could not run it: {answer['error'] or self._logged_error()}")
        return answer

    def _last_words(self) -> str:
        status = self._process.wait()
        return f"it ended with {'signal' if status < 0 else 'status'} {abs(status)}"

    def _logged_error(self) -> str:
        """Why the model did not load: the first error logged, without its clock and function. (What `common_fit_params`
        says is about memory it only hoped for.)"""
        self._log.seek(0)
        found = re.search(rb"^[\d.]+ E (?!common_fit_params)(?:\S+ +)?\S+: +(.+)$", self._log.read(), re.MULTILINE)
        return found[1].decode(errors="replace") if found else "it gives no reason"
