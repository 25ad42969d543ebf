"""The header of a GGUF file as a stream that cannot be made to run past its end or to fill memory.

Every count and length in a header is a claim by a stranger. Here each is held against the bytes that are left before
anything of that size is read or allocated; what is left is the file, or `HEADER_LIMIT_BYTES` where the file is longer,
so that no claim in a large file makes gigabytes of weights be read as metadata.
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from thriftbit.containers.gguf_values import decode_text
from thriftbit.errors import ThriftbitError, shown

# The largest headers (vocabularies of 262,144 tokens with their merges) are about 16 MiB.
HEADER_LIMIT_BYTES = 64 << 20
NAME_LIMIT_BYTES = 65535  # keys, by the specification; tensor names are shorter still

# Arrays worth remembering: vocabularies and merges, of a dozen families of models.
KNOWN_LEAST_STRINGS, KNOWN_MOST_BYTES, KNOWN_MOST_ARRAYS = 1000, 16 << 20, 24

Number = TypeVar("Number", bound=np.generic)


def damaged(path: Path, what: str) -> ThriftbitError:
    return ThriftbitError(f"{path}: {what}. The file is damaged: download or make it again")


class KnownTexts:
    """Arrays of strings that were met in other files. Models of one family have the same vocabulary, byte for byte, and
    to compare it takes a hundredth of the time that taking it apart does: for whoever reads hundreds of headers."""

    def __init__(self) -> None:
        self._arrays: dict[tuple[bytes, str], list[str]] = {}

    def find(self, file: BinaryIO, count: int, byte_order: str, left_bytes: int) -> tuple[list[str], int] | None:
        """Return the strings that the file holds here, not to be changed, and their bytes; it is then behind them.
        None, and the file where it was, if they are new."""
        start = file.tell()
        for (raw, order), texts in self._arrays.items():
            if len(texts) == count and order == byte_order and len(raw) <= left_bytes:
                if file.read(len(raw)) == raw:
                    return texts, len(raw)
                file.seek(start)
        return None

    def keep(self, file: BinaryIO, texts: list[str], byte_order: str, size_bytes: int) -> None:
        """The file is behind the strings, which took so many bytes."""
        if len(texts) < KNOWN_LEAST_STRINGS or size_bytes > KNOWN_MOST_BYTES:
            return
        file.seek(-size_bytes, 1)
        self._arrays[file.read(size_bytes), byte_order] = texts
        if len(self._arrays) > KNOWN_MOST_ARRAYS:
            del self._arrays[next(iter(self._arrays))]


class HeaderStream:
    """Reads typed values one after the other. byte_order: set once the version told which one it is."""

    def __init__(self, path: Path, file: BinaryIO, file_size_bytes: int, known: KnownTexts | None = None) -> None:
        self.path = path
        self._known = known
        self.byte_order: Literal["little", "big"] = "little"
        self._file = file
        self._available = min(file_size_bytes, HEADER_LIMIT_BYTES)
        self._left = self._available - file.tell()
        self._limited = file_size_bytes > HEADER_LIMIT_BYTES

    @property
    def offset(self) -> int:
        return self._available - self._left

    def error(self, what: str) -> ThriftbitError:
        return damaged(self.path, what)

    def take(self, size_bytes: int, what: str) -> bytes:
        self._spend(size_bytes, what)
        raw = self._file.read(size_bytes)
        if len(raw) < size_bytes:
            raise self.error(f"it became shorter while {what} was read")
        return raw

    def integer(self, size_bytes: int, what: str) -> int:
        return int.from_bytes(self.take(size_bytes, what), self.byte_order)

    def count(self, what: str, least_bytes: int) -> int:
        """Return a 64-bit number of things, each of which takes `least_bytes` or more of what is left."""
        count = self.integer(8, what)
        if count * least_bytes > self._left:
            raise self._too_long(f"{count:,} {what}")
        return count

    def text(self, what: str) -> str:
        return decode_text(self.take(self.count(f"bytes of {what}", 1), what))

    def name(self, what: str) -> str:
        """Return the name of a key or tensor: short, UTF-8, printable, not empty."""
        size_bytes = self.count(f"bytes of {what}", 1)
        if not 0 < size_bytes <= NAME_LIMIT_BYTES:
            raise self.error(f"{what} is {size_bytes:,} bytes long")
        raw = self.take(size_bytes, what)
        try:
            name = raw.decode("utf-8")
        except UnicodeDecodeError:
            raise self.error(f"{what} is not UTF-8") from None
        if not name.isprintable():
            raise self.error(f"{what} holds control characters: {shown(name)}")
        return name

    def texts(self, count: int, what: str) -> list[str]:
        """Return `count` strings; a loop without calls of our own, for vocabularies have hundreds of thousands."""
        found = self._known and self._known.find(self._file, count, self.byte_order, self._left)
        if found:
            self._left -= found[1]
            return found[0]
        read, from_bytes, byte_order, left = self._file.read, int.from_bytes, self.byte_order, self._left
        texts = []
        for _ in range(count):
            size_bytes = from_bytes(read(8), byte_order)
            left -= 8 + size_bytes
            if left < 0:
                raise self._too_long(f"a string in {what}")
            texts.append(decode_text(read(size_bytes)))
        size_bytes = self._left - left
        self._left = left
        if self._file.tell() != self.offset:
            raise self.error(f"it became shorter while {what} was read")
        if self._known:
            self._known.keep(self._file, texts, byte_order, size_bytes)
        return texts

    def numbers(self, count: int, dtype: np.dtype[Number], what: str) -> NDArray[Number]:
        """Return a 1-D array in this machine's byte order, read-only."""
        raw = self.take(count * dtype.itemsize, what)
        if dtype == np.bool_:  # any byte but 0 is true
            raw = (np.frombuffer(raw, np.uint8) != 0).tobytes()
        numbers = np.frombuffer(raw, dtype.newbyteorder(self.byte_order)).astype(dtype)
        numbers.flags.writeable = False
        return numbers

    def _spend(self, size_bytes: int, what: str) -> None:
        if size_bytes > self._left:
            raise self._too_long(what)
        self._left -= size_bytes

    def _too_long(self, what: str) -> ThriftbitError:
        if self._limited:
            return self.error(f"{what} would make the header larger than {HEADER_LIMIT_BYTES >> 20} MiB")
        return self.error(f"{what} would reach past the end of the file")
