"""Every class that llama.cpp's converter knows: a table of ours, or an answer in one or two lines, and no traceback."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from conformance.converter import real_converter
from thriftbit.errors import ThriftbitError
from thriftbit.inspection import inspect
from thriftbit.sources.open_model import has_table, open_model
from thriftbit.sources.remote import open_outline

SETTINGS = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 96,
    "vocab_size": 131,
    "max_position_embeddings": 64,
}


@pytest.mark.parametrize("with_weights", [False, True])
def test_none_of_them_is_a_dead_end(with_weights: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    classes = sorted(real_converter().classes)
    assert len(classes) > 200
    monkeypatch.setenv("PATH", str(tmp_path))  # no converter is found from here on
    monkeypatch.setenv("THRIFTBIT_DATA", str(tmp_path / "data"))
    for number, name in enumerate(classes):
        folder = tmp_path / str(number)
        folder.mkdir()
        model_type = re.sub(r"For.*|Model$|LMHeadModel$", "", name).lower()
        config = SETTINGS | {"architectures": [name], "model_type": model_type}
        (folder / "config.json").write_text(json.dumps(config))
        if with_weights:
            save_file({"model.embed_tokens.weight": np.ones((131, 64), np.float32)}, folder / "model.safetensors")
        for act in (open_model, open_outline, inspect):
            try:
                act(folder)
            except ThriftbitError as error:
                assert 0 < len(str(error).splitlines()) <= 2, name
                if with_weights and act is open_model and not has_table(config):
                    assert "has no table here" in str(error) and "thriftbit quantize FILE.gguf" in str(error), name
