"""Which numbers of threads are worth trying."""

from __future__ import annotations

import pytest

from thriftbit.runtime.thread_choice import numbers_to_try


@pytest.mark.parametrize(
    ("physical", "logical", "idle", "numbers"),
    [
        (1, 1, 1, [1]),
        (1, 1, 0, [1]),
        (2, 2, 2, [2, 1]),
        (4, 8, 8, [4, 8, 2, 1]),
        (32, 64, 60, [32, 64, 16, 8, 4, 2, 1]),  # a container may be allowed two of them, and nobody says so
        (8, 16, 3, [3, 4, 2, 1]),  # all eight would wait for those that somebody else uses
        (2, 2, 0, [1]),
        (32, 64, 0, [1]),
    ],
)
def test_the_likely_ones_first_and_none_that_would_wait_for_others(
    physical: int, logical: int, idle: int, numbers: list[int]
) -> None:
    assert numbers_to_try(physical, logical, idle) == numbers
