"""What others published about the losses of presets."""

from __future__ import annotations

import json
from pathlib import Path

from thriftbit.advice.literature import literature_loss, published


def test_losses_from_the_literature_agree_with_one_another() -> None:
    order = ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_K_S", "Q3_K_M", "Q3_K_S", "Q2_K")
    losses = [literature_loss(preset, 7e9) for preset in order]
    values = [loss.value for loss in losses if loss and loss.value]
    assert len(values) == len(order) and values == sorted(values)
    assert literature_loss("TQ1_0", 7e9) is None
    for loss in losses:
        assert loss and loss.low and loss.high and loss.value and loss.low < loss.value < loss.high
    assert all(row.address.startswith("https://") for row in published())


def test_published_losses_are_ranges_by_size_and_kind_from_at_least_twelve_tables() -> None:
    assert len({row.address for row in published()}) >= 12
    large, middle = literature_loss("Q4_K_M", 70e9), literature_loss("Q4_K_M", 8e9)
    mixture = literature_loss("Q4_K_M", 35e9, mixture=True)
    assert large and middle and mixture
    assert "Llama 3.3 70B" in large.reason and "Llama 3.3 70B" not in middle.reason
    assert "mixtures of experts" in mixture.reason and "Qwen3.6 35B-A3B" in mixture.reason
    assert middle.low and middle.high and middle.high > 2 * middle.low


def test_a_published_loss_lies_within_its_range() -> None:
    for row in published():
        for preset, loss in row.losses.items():
            found = literature_loss(preset, 1e9 * row.billions, mixture=row.mixture)
            assert found and found.low and found.high
            # never less than of a preset that loses less in all tables together, so the low end may be above it
            assert loss <= found.high * 1.000001, (row.model, preset)


def test_the_table_of_the_literature_is_what_llama_cpp_published() -> None:
    document = json.loads((Path(literature_loss.__code__.co_filename).with_name("literature.json")).read_text())
    assert {row["source"] for row in document["rows"]} == set(document["sources"])
