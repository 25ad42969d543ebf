"""How many tokens pass a layer at once, and what happens where there is no memory for so many.

What a layer needs for its tokens is the only part of memory that can be had smaller without computing anything else:
the same numbers come out, more slowly. So the work is tried again with half as many, and again, before it is given up.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import psutil
import torch

from thriftbit.errors import ThriftbitError
from thriftbit.sizes import describe_bytes

BATCH_TOKENS = 1024
FEWEST_TOKENS = 128
# What torch says of a processor's memory, and what the library that multiplies bfloat16 says
_WORDS = ("allocate memory", "could not create a primitive")

Result = TypeVar("Result")


def in_batches(compute: Callable[[int], Result], doing: str) -> Result:
    """compute: is given how many tokens should pass a layer at once, at least one text. doing: "calibrating MODEL".

    -> its result; with fewer tokens at once if there is not memory enough, from its beginning
    Raises ThriftbitError if there is no memory for the fewest either.
    """
    tokens = BATCH_TOKENS
    while tokens >= FEWEST_TOKENS:
        try:
            return compute(tokens)
        except (MemoryError, RuntimeError) as error:
            if not _out_of_memory(error):
                raise
        tokens //= 2
    raise ThriftbitError(
        f"{doing}: there is not enough memory, with {describe_bytes(psutil.virtual_memory().available)} free now; "
        "close other programs, or use a computer with more"
    )


def _out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(words in str(error) for words in _WORDS)
