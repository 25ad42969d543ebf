from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from thriftbit.quantization.ahead import Ahead


def test_items_arrive_in_order() -> None:
    with Ahead(range(100)) as items:
        assert list(items) == list(range(100))


def test_no_more_items_exist_than_its_depth() -> None:
    class Counted:
        def __init__(self) -> None:
            alive.add(id(self))
            most.append(len(alive))

        def __del__(self) -> None:
            alive.discard(id(self))

    alive, most = set[int](), list[int]()
    with Ahead((Counted() for _ in range(12)), depth=2) as items:
        for item in items:
            time.sleep(0.01)  # the producer has time for more
            del item
    assert len(most) == 12 and max(most) == 2


def test_an_error_is_raised_in_its_place() -> None:
    def produce() -> Iterator[int]:
        yield 1
        raise ValueError("no more")

    received = []
    with pytest.raises(ValueError, match="no more"), Ahead(produce()) as items:
        for item in items:
            received.append(item)
    assert received == [1]


def test_leaving_early_ends_all_stages() -> None:
    before = threading.active_count()
    with (
        pytest.raises(KeyboardInterrupt),
        Ahead(iter(lambda: 0, 1)) as first,
        Ahead(item + 1 for item in first) as second,
    ):
        for _ in second:
            raise KeyboardInterrupt
    assert threading.active_count() == before
