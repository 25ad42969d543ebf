"""How many tokens pass a layer at once, and what happens if memory runs out.

With fewer tokens at once, a layer takes less memory and gives the same numbers, only more slowly. So if memory runs
out, the work is tried again with half as many tokens, and again, before it is given up."""

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
    """Return the result of `compute`. If memory runs out, it is called again with fewer tokens at once.

    compute: takes the number of tokens that pass a layer at once; one text passes even if it is longer. doing: begins
    the error: "calibrating MODEL". Raises ThriftbitError if memory does not suffice even for the fewest tokens."""
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
