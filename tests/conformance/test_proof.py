"""What llama.cpp's converter made is kept only if llama.cpp computes with it what transformers does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from thriftbit import make_plan, open_model, quantize
from thriftbit.errors import ThriftbitError
from thriftbit.measurement.proof import proven
from thriftbit.sources.converter import ConverterOptions

from .converter import real_converter
from .test_converter import folder

__all__ = ["folder"]  # a fixture


def test_a_file_gets_its_name_only_if_both_agree(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THRIFTBIT_CACHE", str(tmp_path / "cache"))
    model = open_model(folder, converter=ConverterOptions(real_converter().folder))
    output = tmp_path / "files" / "model.gguf"
    output.parent.mkdir()
    for name, key, value in (
        ("attention", "attention.layer_norm_rms_epsilon", np.float32(0.5)),
        ("rotary embedding", "rope.freq_base", np.float32(3.0)),
    ):
        full = f"{model.architecture}.{key}"
        assert full in model.metadata, name
        misread = replace(model, metadata={**model.metadata, full: value})
        with (
            pytest.raises(ThriftbitError, match="computes something else with this file"),
            proven(misread, output, force=False) as target,
        ):
            quantize(misread, make_plan(misread, "F16"), target)
        assert not list(output.parent.iterdir())
    with proven(model, output, force=False) as target:
        quantize(model, make_plan(model, "Q8_0"), target)
    assert [path.name for path in output.parent.iterdir()] == ["model.gguf"]
    with pytest.raises(ThriftbitError, match="exists already"), proven(model, output, force=False):
        pytest.fail("it is told before the work")
