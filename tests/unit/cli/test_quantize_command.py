from __future__ import annotations

from thriftbit.cli.quantize import describe_presets
from thriftbit.quantization.presets import PRESETS


def test_every_preset_is_explained_in_a_line_that_fits() -> None:
    lines = describe_presets().splitlines()
    assert [line.split()[0] for line in lines] == list(PRESETS)
    for line, preset in zip(lines, PRESETS.values(), strict=True):
        assert line.endswith(preset.summary)
        assert len(line) <= 100
