"""Record what llama.cpp makes of tiny models of every family: its converter's keys and tensors, llama-quantize's types.

    python tools/record_converted.py LLAMA_CPP_SOURCE LLAMA_QUANTIZE [TINY_MODEL ...] --version b11434

LLAMA_CPP_SOURCE: llama.cpp's source tree, with its `conversion` and `gguf-py`. LLAMA_QUANTIZE: the program built of it.
The models are those of tests/conformance/tiny_models.py, made wide enough for blocks of 256 where they allow it; what
is recorded goes to tests/conformance/converted/, and test_converted.py holds our tables to it. Run once for each new
family and each release of llama.cpp.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
RECORDED = ROOT / "tests" / "conformance" / "converted"
PRESETS = ("Q8_0", "Q4_K_M", "Q2_K")
LINE = re.compile(r"\] +(\S+) +- \[[^\]]*\], type = +(\w+), size = .*? MiB(?: -> .*? MiB \((\w+)\))?$", re.MULTILINE)


# The converter wants llama.cpp's own gguf package, and no vocabulary is recorded.
CONVERTING = """
import sys
from pathlib import Path
import gguf
from conversion import get_model_class
from conversion.base import ModelBase, ModelType, get_model_architecture
folder, made = map(Path, sys.argv[1:])
hparams = ModelBase.load_hparams(folder, False)
converter = get_model_class(get_model_architecture(hparams, ModelType.TEXT), False)
converting = converter(folder, gguf.LlamaFileType.MOSTLY_BF16, made)
getattr(converting, "impl", converting).set_vocab = lambda: None  # Mistral 3's converter hands over to another one
converting.write()
"""


def convert(source: Path, folder: Path, made: Path) -> None:
    paths = os.pathsep.join(map(str, (source / "gguf-py", source)))
    command = [sys.executable, "-c", CONVERTING, str(folder), str(made)]
    result = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True, check=False
    )
    if result.returncode:
        raise SystemExit(f"the converter failed:\n{result.stderr[-3000:]}")


def described(made: Path) -> dict[str, Any]:
    """Return keys of the architecture, and every tensor with its shape and a hash of its values as float32."""
    import gguf
    from tests.conformance.test_converted import digest

    reader = gguf.GGUFReader(made)
    architecture = bytes(reader.fields["general.architecture"].parts[-1]).decode()
    keys = {
        name.removeprefix(f"{architecture}."): plain(field.contents())
        for name, field in reader.fields.items()
        if name.startswith(f"{architecture}.")
    }
    tensors = {}
    for tensor in reader.tensors:
        stored = tensor.tensor_type.name
        tensors[tensor.name] = [list(map(int, reversed(tensor.shape))), stored, digest(values_of(tensor), stored)]
    return {"architecture": architecture, "keys": keys, "tensors": tensors}


def plain(value: Any) -> Any:
    if isinstance(value, list):
        return [plain(each) for each in value]
    return value.item() if isinstance(value, np.generic) else value


def values_of(tensor: Any) -> Any:
    from gguf.quants import dequantize

    return dequantize(tensor.data, tensor.tensor_type)


def chosen_types(quantize: Path, made: Path, preset: str) -> dict[str, str]:
    result = subprocess.run(
        [str(quantize), "--dry-run", str(made), preset], capture_output=True, text=True, check=False
    )
    if result.returncode:
        raise SystemExit(f"{quantize} failed:\n{result.stdout[-2000:]}{result.stderr[-2000:]}")
    line = re.compile(
        r"\] +(\S+) +- \[[^\]]*\], type = +(\w+), size = .*? MiB(?: -> .*? MiB \((\w+)\))?$", re.MULTILINE
    )
    return {name: (after or before).upper() for name, before, after in line.findall(result.stdout + result.stderr)}


def record(source: Path, quantize: Path, version: str, name: str) -> None:
    from tests.conformance.converted_models import WIDE_MODELS, save_wide

    with tempfile.TemporaryDirectory() as temporary:
        folder, made = Path(temporary) / "model", Path(temporary) / "model.gguf"
        save_wide(WIDE_MODELS[name], folder)
        convert(source, folder, made)
        found = described(made)
        types = {preset: chosen_types(quantize, made, preset) for preset in PRESETS}
    head = {"recorded_from": f"llama.cpp {version}: convert_hf_to_gguf.py, llama-quantize --dry-run"}
    text = json.dumps(head | {key: found[key] for key in ("architecture", "keys")})[:-1]
    rows = [
        json.dumps([tensor, *entry, *(types[preset].get(tensor, "") for preset in PRESETS)])
        for tensor, entry in found["tensors"].items()
    ]
    RECORDED.mkdir(exist_ok=True)
    (RECORDED / f"{name}.json").write_text(f'{text},\n"tensors": [\n ' + ",\n ".join(rows) + "\n]}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("llama_cpp_source", type=Path)
    parser.add_argument("llama_quantize", type=Path)
    parser.add_argument("models", nargs="*", help="all of them by default")
    parser.add_argument("--version", required=True, help="the llama.cpp build, for the record")
    options = parser.parse_args()
    torch.set_num_threads(1)
    from tests.conformance.converted_models import WIDE_MODELS

    for name in options.models or WIDE_MODELS:
        try:
            record(options.llama_cpp_source, options.llama_quantize, options.version, name)
        except SystemExit as problem:
            print(name, problem, flush=True)
        else:
            print(name, flush=True)


if __name__ == "__main__":
    main()
