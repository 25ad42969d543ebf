from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from thriftbit.quantization.ahead import Ahead


def test_items_arrive_in_order() -> None:
    with Ahead(range(100)) as items:
        assert list(items) == list(range(100))


def test_it_runs_ahead_by_no_more_than_its_depth() -> None:
    produced: list[int] = []
    third = threading.Event()

    def produce() -> Iterator[int]:
        for number in range(10):
            produced.append(number)
            if number == 3:
                third.set()
            yield number

    with Ahead(produce(), depth=2) as items:
        iterator = iter(items)
        assert next(iterator) == 0
        assert third.wait(timeout=10)  # 1 and 2 are waiting, 3 is in hand
        assert produced == [0, 1, 2, 3]


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
