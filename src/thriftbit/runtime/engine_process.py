"""The process that llama.cpp lives in; `engine.py` starts it and says why.

Lines of JSON: the first one in is the settings, every other a request for a completion; each is answered by one line
out. It ends when its input does.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

_ERRORS_ONLY = 1


def load(settings: dict[str, Any]) -> Any:
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = settings["path"]
    parameters.n_ctx = settings["context_tokens"]
    parameters.n_parallel = 1
    parameters.verbosity = _ERRORS_ONLY
    if settings["threads"]:
        parameters.cpuparams.n_threads = settings["threads"]
        parameters.cpuparams_batch.n_threads = settings["threads"]
    return xllamacpp.Server(parameters)


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then closes our input
    # llama.cpp may print; the answers keep the standard output to themselves, and prints join the log
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    server: Any = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if server is None:
                server = load(request)
                answer = {}
            else:
                answer = server.handle_completions(request)
                if "error" in answer:
                    answer = {"error": answer["error"]["message"]}
        except Exception as error:
            answer = {"error": str(error) if server else ""}  # why it could not load stands in the log alone
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
