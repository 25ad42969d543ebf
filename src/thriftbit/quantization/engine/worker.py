"""The program of a worker process: it computes one task after the other, until its input ends.

Run by `pool.py`, with BLAS and torch limited to one thread by its environment. What a task prints goes to the error
output, because the standard output carries results.
"""

from __future__ import annotations

import os
import pickle
import sys
import traceback
from typing import Any

from thriftbit.quantization.engine.messages import receive, send
from thriftbit.runtime.end_with_parent import end_with_parent


def main() -> None:
    end_with_parent(int(sys.argv[1]))
    results = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    while True:
        try:
            function, task = receive(sys.stdin.buffer)
        except EOFError:
            return
        send(results, _answer(function, task))


def _answer(function: Any, task: Any) -> tuple[bool, Any]:
    """Return (whether it went well, the result or the exception)."""
    try:
        return True, function(task)
    except Exception as error:
        error.add_note(f"In a worker process:\n{traceback.format_exc()}")
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:  # an exception that cannot travel: its words do
            return False, RuntimeError("".join(traceback.format_exception(error)))
        return False, error


if __name__ == "__main__":
    main()
