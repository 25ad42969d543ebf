"""The one error users see, and how its message shows what strangers wrote.

Everything that can go wrong with a user's input, disk or choice raises `ThriftbitError`. Its message names the file or
tensor, says what is wrong and what to do, in one or two lines; the command line prints it without a traceback. Anything
else that escapes is a bug of ours and keeps its traceback.
"""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from typing import Any

_short_repr = reprlib.Repr()
_short_repr.maxstring = 100


class ThriftbitError(Exception):
    """Something the user can mend. `exit_code` is what the command line leaves with."""

    exit_code = 1


class UsageError(ThriftbitError):
    """The request itself does not make sense (an unknown format, contradictory options)."""

    exit_code = 2


def shown(value: Any) -> str:
    """Return `value` as an error message shows it: escaped, and not too long, whatever it is."""
    is_number = getattr(value, "shape", None) == ()  # numpy's, whose own way of showing itself names its type
    return _short_repr.repr(value.item() if is_number else value)


def enumeration(names: Sequence[str]) -> str:
    """Return the names as a message lists them: three at most, then how many more."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


# What torch says of a processor's memory, and what the library that multiplies bfloat16 says
_WORDS_FOR_MEMORY = ("allocate memory", "could not create a primitive")


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether numpy, torch or the system said that there is no memory. torch is not imported for its class."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return any(words in str(error) for words in _WORDS_FOR_MEMORY)
