from __future__ import annotations

from pathlib import Path

import pytest

from thriftbit.quantization.preset_sizes import describe_presets, markdown_rows, typical_bits_per_weight
from thriftbit.quantization.presets import PRESETS

# As llama.cpp's own documentation of `llama-quantize` gives them for Llama 3.1 8B
PUBLISHED = {
    "Q2_K": 3.16,
    "Q3_K_S": 3.64,
    "Q3_K_M": 4.00,
    "Q3_K_L": 4.30,
    "IQ4_XS": 4.46,
    "Q4_K_S": 4.67,
    "Q4_K_M": 4.89,
    "Q5_K_S": 5.57,
    "Q5_K_M": 5.70,
    "Q6_K": 6.56,
    "Q8_0": 8.50,
}


@pytest.mark.parametrize("preset", PUBLISHED)
def test_sizes_are_those_that_llama_cpp_publishes(preset: str) -> None:
    assert typical_bits_per_weight(PRESETS[preset]) == pytest.approx(PUBLISHED[preset], abs=0.01)


def test_the_documentation_has_every_preset() -> None:
    documented = (Path(__file__).parents[3] / "docs" / "formats.md").read_text(encoding="utf-8").splitlines()
    missing = [row for row in markdown_rows() if row not in documented]
    assert missing == [], "docs/formats.md lacks these rows of `markdown_rows`"


def test_every_preset_is_explained_in_a_line_that_fits() -> None:
    lines = describe_presets().splitlines()
    assert [line.split()[0] for line in lines] == list(PRESETS)
    for line, preset in zip(lines, PRESETS.values(), strict=True):
        assert line.endswith(preset.summary)
        assert len(line) <= 100
