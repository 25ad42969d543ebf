from __future__ import annotations

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from thriftbit.quantization import product_threads
from thriftbit.quantization.product_threads import fastest_products


def blas_threads() -> set[int]:
    np.ones((2, 2)) @ np.ones((2, 2))
    return {info["num_threads"] for info in threadpool_info() if info["user_api"] == "blas"}


def test_products_get_the_number_that_was_found_and_then_what_they_had(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(product_threads, "_chosen", (1, float("inf")))
    before = blas_threads()
    with fastest_products():
        assert blas_threads() == {1}
    assert blas_threads() == before


def test_it_is_tried_again_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(product_threads, "_chosen", (1000, float("-inf")))
    most = max(blas_threads())

    @fastest_products()
    def threads() -> int:
        return max(blas_threads())

    assert 1 <= threads() <= most
    found = product_threads._chosen
    assert found[0] == threads()
    assert product_threads._chosen == found  # believed for now
