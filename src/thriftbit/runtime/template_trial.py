"""Try a file's chat template before a model is loaded with it: does it show the model what is said, and end?

A chat template is a program in Jinja that a stranger wrote. llama.cpp runs it when it loads a model, and for every
conversation, in the process that holds the model and without any limit. So it is tried first, by llama.cpp itself: in a
process of its own (`confined.py`), with a model of a few kilobytes that has nothing but the template and the tokens it
names. The conversations of the trial are short and long, with and without a system text, tools and thoughts, and hold
what a template may stumble over.

A template that passes may still behave otherwise with other words. While a conversation runs, `engine_process.py` gives
it a limit of time, and `engine.py` watches memory.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import sys
from contextlib import suppress
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from gguf import Keys

from thriftbit.containers.gguf_values import MetadataValue
from thriftbit.containers.temporary_folder import temporary_folder
from thriftbit.errors import ThriftbitError
from thriftbit.folders import cache_folder
from thriftbit.machine.private_files import private_folder
from thriftbit.runtime.confined import limit_this_process, run_confined
from thriftbit.runtime.smallest_model import write_smallest

TOOL_USE = "tokenizer.chat_template.tool_use"
_BOS_TEXT, _EOS_TEXT = "<s>", "</s>"
_PATIENCE_SECONDS, _PROCESSOR_SECONDS = 30.0, 3
_MORE_BYTES, _RESIDENT_BYTES = 400 << 20, 1 << 30
_TRIAL_VERSION = b"1"  # of what is tried below
_LONGEST = 1 << 20  # characters of a template
_NO_GPUS = {"CUDA_VISIBLE_DEVICES": "", "HIP_VISIBLE_DEVICES": "", "GGML_VK_VISIBLE_DEVICES": ""}

_MARK = "zqOnEqz"  # no template writes it by itself
_ODD = "Line\n\n{{ 7 * 7 }} {% if %} <|im_end|> </s> \"quoted\" 'so' \\n \t é 漢字 🙂 " + "a" * 300 + " " * 300 + "\n"
_TOOL = {
    "type": "function",
    "function": {
        "name": "look",
        "description": "Looks something up",
        "parameters": {"type": "object", "properties": {"what": {"type": "string"}}, "required": ["what"]},
    },
}


def why_unusable(template: str, tool_use: str | None, beginning: str | None, end: str | None) -> str:
    """template, tool_use: a file's chat templates. beginning, end: the texts of the tokens that begin and end a text.
    Returns why the model cannot be loaded with them, to stand after "has a chat template that"; "" if it can."""
    if len(template) + len(tool_use or "") > _LONGEST:
        return "is longer than any that is known to be good"
    return _tried(template, tool_use, beginning or _BOS_TEXT, end or _EOS_TEXT)


@lru_cache(maxsize=64)
def _tried(template: str, tool_use: str | None, beginning: str, end: str) -> str:
    question = json.dumps({"template": template, "tool_use": tool_use, "beginning": beginning, "end": end}).encode()
    found_good = _found_good(question)
    if found_good.exists():
        return ""
    reason = _reason(question)
    if not reason:
        with suppress(OSError, ThriftbitError):  # then it is tried again next time
            (private_folder(found_good.parent) / found_good.name).touch(0o600)
    return reason


def _found_good(question: bytes) -> Path:
    """Return an empty file, which is there if this engine got through the trial with these templates before. The trial
    takes a second or more; what fails it is tried every time, as a busy computer may have been the reason."""
    identity = question + version("xllamacpp").encode() + _TRIAL_VERSION
    return cache_folder() / "chat-templates" / hashlib.sha256(identity).hexdigest()


def _reason(question: bytes) -> str:
    with temporary_folder("template") as folder:
        asked = {"folder": str(folder), "seconds": _PROCESSOR_SECONDS, **json.loads(question)}
        answer = run_confined(
            "thriftbit.runtime.template_trial",
            json.dumps(asked).encode(),
            patience_seconds=_PATIENCE_SECONDS,
            memory_bytes=_RESIDENT_BYTES,
            environment=_NO_GPUS,
        )
    if answer is None:
        return "takes too much time or memory, or crashes llama.cpp"
    try:
        return str(json.loads(answer))
    except ValueError:
        return "llama.cpp cannot use"


def _conversations() -> list[dict[str, Any]]:
    """Return requests, the plainest first."""
    said = [{"role": "user", "content": _MARK}]
    talk = [{"role": "assistant", "content": _ODD}, {"role": "user", "content": _ODD}]
    system = [{"role": "system", "content": _ODD}]
    long = [{"role": role, "content": _ODD * 20} for _ in range(15) for role in ("user", "assistant")]
    return [
        {"messages": said},
        {"messages": [*system, *said, *talk]},
        {"messages": [*long, *said]},
        {"messages": said, "tools": [_TOOL], "chat_template_kwargs": {"enable_thinking": True}},
        {"messages": [*system, *long, *said], "tools": [_TOOL], "chat_template_kwargs": {"enable_thinking": False}},
    ]


def _try(question: dict[str, Any]) -> str:
    """Return the reason, as `why_unusable` does."""
    import xllamacpp

    limit_this_process(_MORE_BYTES, question["seconds"])
    parameters = xllamacpp.CommonParams()
    parameters.n_ctx, parameters.n_parallel, parameters.n_gpu_layers = 64, 1, 0
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = 1
    parameters.warmup, parameters.fit_params, parameters.verbosity = False, False, -1
    path = Path(question["folder"]) / "template.gguf"
    _write(path, question)
    parameters.model.path = str(path)
    try:
        server = xllamacpp.Server(parameters)
    except Exception:  # the tiny model is good, so it is the template
        return "llama.cpp cannot use"
    address = urlsplit(server.listening_address)
    for number, conversation in enumerate(_conversations()):
        shown = _shown(address.hostname or "", address.port or 0, conversation)
        if number == 0 and shown is None:
            return "llama.cpp cannot use"
        if number == 0 and _MARK not in (shown or ""):
            return "does not show the model what is said"
    return ""


def _shown(host: str, port: int, conversation: dict[str, Any]) -> str | None:
    """Return what the model would be shown; None if the template refuses the conversation."""
    connection = http.client.HTTPConnection(host, port)
    connection.request("POST", "/apply-template", json.dumps(conversation), {"Content-Type": "application/json"})
    answer = json.loads(connection.getresponse().read())
    connection.close()
    prompt = answer.get("prompt")
    return prompt if isinstance(prompt, str) else None


def _write(path: Path, question: dict[str, Any]) -> None:
    tokens = ["<unk>", question["beginning"], question["end"], *(f"<0x{byte:02X}>" for byte in range(256))]
    if tokens[1] == tokens[2]:
        tokens[2] = f"{tokens[2]} "
    metadata: dict[str, MetadataValue] = {
        "tokenizer.ggml.model": "llama",
        Keys.Tokenizer.LIST: tokens,
        "tokenizer.ggml.scores": np.zeros(len(tokens), np.float32),
        "tokenizer.ggml.token_type": np.array([2, 3, 3] + [6] * 256, np.int32),
        "tokenizer.ggml.bos_token_id": np.uint32(1),
        "tokenizer.ggml.eos_token_id": np.uint32(2),
        "tokenizer.ggml.unknown_token_id": np.uint32(0),
        Keys.Tokenizer.CHAT_TEMPLATE: question["template"],
    }
    if question["tool_use"]:
        metadata[TOOL_USE] = question["tool_use"]
    write_smallest(path, metadata)


def main() -> None:
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # llama.cpp may print
    print(json.dumps(_try(json.loads(sys.stdin.buffer.read()))), file=answers, flush=True)
    os._exit(0)  # llama.cpp's threads hold nothing that would need saving


if __name__ == "__main__":
    main()
