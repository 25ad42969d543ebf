"""A layer in bfloat16 products is the same layer to two digits, and gives float32 all the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from thriftbit import open_model
from thriftbit.network import products
from thriftbit.network.configuration import configuration_of
from thriftbit.network.network import Network
from thriftbit.network.products import short_products
from thriftbit.network.threads import multiplications_per_second
from thriftbit.network.weights import Weights

CPU = torch.device("cpu")


def both(folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what leaves a layer, without short products and with them."""
    model = open_model(folder)
    weights, network = Weights(model), Network(configuration_of(model), CPU)
    with torch.no_grad():
        hidden = network.embed(weights, torch.arange(96).reshape(2, 48))
        with network.layer(0, weights) as layer:
            plain = network.call(0, layer, hidden)
            with short_products(CPU):
                return plain, network.call(0, layer, hidden)


def test_a_layer_is_the_same_to_two_digits(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "_processor_has_them", lambda: True)
    plain, short = both(tiny_llama)
    assert short.dtype == torch.float32
    assert 0 < (short - plain).norm() < 0.01 * plain.norm()


def test_where_it_would_not_be_faster_nothing_changes(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "_processor_has_them", lambda: False)
    plain, short = both(tiny_llama)
    assert torch.equal(plain, short)


def test_their_speed_is_tried() -> None:
    assert 1e7 < multiplications_per_second(short=True) < 1e14
