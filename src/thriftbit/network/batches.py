"""How many tokens pass a layer at once, and what happens where there is no memory for so many.

What a layer needs for its tokens is the only part of memory that can be had smaller without computing anything else:
the same numbers come out, more slowly. So the work is tried again with half as many, and again, before it is given up.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import psutil

from thriftbit.errors import ThriftbitError, is_out_of_memory
from thriftbit.sizes import describe_bytes

BATCH_TOKENS = 1024
FEWEST_TOKENS = 128

Result = TypeVar("Result")


def in_batches(compute: Callable[[int], Result], doing: str) -> Result:
    """compute: is given how many tokens should pass a layer at once, at least one text. doing: "calibrating MODEL".

    Returns its result; with fewer tokens at once if there is not memory enough, from its beginning.
    Raises ThriftbitError if there is no memory for the fewest either."""
    tokens = BATCH_TOKENS
    while tokens >= FEWEST_TOKENS:
        try:
            return compute(tokens)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        tokens //= 2
    raise ThriftbitError(
        f"{doing}: there is not enough memory, with {describe_bytes(psutil.virtual_memory().available)} free now; "
        "close other programs, or use a computer with more"
    )
