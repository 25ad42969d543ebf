"""Which architectures llama.cpp runs: the `gguf` package has a list, and the llama.cpp in the box has the last word.

The package lags behind llama.cpp. So where it does not know a name, llama.cpp is given a file that has this name and
nothing else. It refuses the file either way, and says whether for its architecture.
"""

from __future__ import annotations

from functools import cache

import gguf

from thriftbit.containers.gguf_writer import GGUFWriter, layout
from thriftbit.containers.temporary_folder import temporary_folder
from thriftbit.errors import ThriftbitError
from thriftbit.runtime.engine import Engine

_LISTED = frozenset(gguf.MODEL_ARCH_NAMES.values())
_REFUSAL = "unknown model architecture"


@cache
def llama_cpp_knows(architecture: str) -> bool:
    """architecture: GGUF's `general.architecture`. Returns whether the `gguf` package or the llama.cpp here has it."""
    if architecture in _LISTED:
        return True
    with temporary_folder("architecture") as folder:
        path = folder / "architecture.gguf"
        with GGUFWriter(path, layout({"general.architecture": architecture}, [])):
            pass
        try:
            with Engine(path):
                return True
        except ThriftbitError as error:
            return _was_read(str(error)) and _REFUSAL not in str(error)


def _was_read(refusal: str) -> bool:
    """Return whether llama.cpp came as far as the file's metadata, rather than being absent or damaged."""
    return "error loading model" in refusal
