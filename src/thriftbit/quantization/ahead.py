"""Work that runs ahead of its consumer, in a thread of its own, by a bounded number of items."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from queue import SimpleQueue
from typing import Generic, Self, TypeVar

Item = TypeVar("Item")


class Ahead(Generic[Item]):
    """Context manager and iterator over `items`. A thread produces the items; at most `depth` of them exist at a time:
    the one that the consumer has, until it asks for the next, those that wait, and the one that is being produced.

    What `items` raises is raised to the consumer, at its place in the order. Leaving the context stops the thread after
    the present item; nothing goes on in the background.
    """

    def __init__(self, items: Iterable[Item], depth: int = 2) -> None:
        self._items = items
        self._free_places = threading.Semaphore(depth)
        self._ready: SimpleQueue[tuple[Item] | BaseException | None] = SimpleQueue()
        self._stopped = False
        self._thread = threading.Thread(target=self._produce, name="thriftbit-ahead")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __iter__(self) -> Iterator[Item]:
        while (item := self._ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item[0]
            del item
            self._free_places.release()

    def __exit__(self, *_: object) -> None:
        self._stopped = True
        self._free_places.release()
        self._thread.join()

    def _produce(self) -> None:
        try:
            items = iter(self._items)
            while True:
                self._free_places.acquire()
                if self._stopped:
                    break
                item = next(items)
                self._ready.put((item,))
                del item  # it belongs to the consumer now; kept here, its memory would be too
        except StopIteration:
            self._ready.put(None)
        except BaseException as error:  # of any kind: raised again where it matters
            self._ready.put(error)
