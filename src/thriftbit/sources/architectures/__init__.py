"""Model families that can be quantized, found from the files in `families/`.

How to add a family:

1. Write `families/NAME.py` with an `ARCHITECTURE`. Begin with the family most like it: `qwen3.py` (all layers alike),
   `gemma2.py` (sliding windows), `qwen3_moe.py` (experts), `qwen3_5.py` (recurrent layers), `glm4_moe_lite.py` (MLA).
2. Say what a layer is made of: `layer_of(ATTENTION_NORM, ATTENTION, FFN_NORM, GATED_FFN)`. Parts are in
   `llama_like.py`, `gemma_like.py`, `delta_net.py`, `latent.py`; a new one is a `Kind(rows, keeps)`: its tensors, and
   what it keeps of the text (`layer_cache.py`). A row is `layer(transformers' name, GGUF's name, "shape in words")`;
   the words are `Dimensions`, or the family's `lengths`.
3. Say which layer is which: `layers=every_layer(...)`, `every_nth(4, FULL, others=sliding(FULL))`, or a function of
`Dimensions`, which reads the GGUF keys. If the container arranges weights otherwise, give the row a transform with its
inverse (`transforms.py`). If one source becomes several tensors: `target=(a, b)`. The source is always the name in
transformers; names in other checkpoints go into `spellings` of the row or `prefixes` of the family.
4. `metadata_keys`: GGUF key -> setting, or a function of the configuration (numbers, flags, texts, lists). A function
   has no inverse by itself: give those settings in `restored`. Settings that llama.cpp computes otherwise go into
   `fixed` or `checks`; add `notes` for what people should know.
5. Add tiny models of the class, with several settings, to `tests/conformance/tiny_models.py`. All tests find them.
6. Run `python tools/record_converted.py LLAMA_CPP_SOURCE LLAMA_QUANTIZE NAME --version BUILD`. Then run
test_architectures.py, test_network.py and test_converted.py in `tests/conformance/`, with `-k NAME`."""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from typing import Any

from thriftbit.containers.gguf_values import Metadata
from thriftbit.errors import ThriftbitError, shown
from thriftbit.sources.architectures import families
from thriftbit.sources.architectures.architecture import Architecture
from thriftbit.sources.architectures.roles import role_of

__all__ = ["Architecture", "architecture_from_gguf", "find_architecture", "known_architectures", "role_of"]


@cache
def known_architectures() -> Mapping[str, Architecture]:
    """Return every architecture by the name of its family (and file), in alphabetical order."""
    names = sorted(module.name for module in pkgutil.iter_modules(families.__path__))
    return {name: import_module(f"{families.__name__}.{name}").ARCHITECTURE for name in names}


def find_architecture(config: Mapping[str, Any]) -> Architecture:
    """Return the architecture of a checkpoint. Raises ThriftbitError, which says what works, for an unknown class.

    config: config.json. The class in it decides, or the model type if no class is named. `LlamaModel` is taken for
    `LlamaForCausalLM`, because only the output matrix is missing."""
    classes = config.get("architectures")
    named = classes[0] if isinstance(classes, list) and classes else None
    model_type = config.get("model_type")
    headed = (
        named.removesuffix("Model") + "ForCausalLM" if isinstance(named, str) and named.endswith("Model") else named
    )
    for architecture in known_architectures().values():
        named_here = named in architecture.classes or headed in architecture.classes
        if (named_here or (named is None and model_type in architecture.model_types)) and architecture.applies(config):
            return architecture
    raise ThriftbitError(
        f"The class {shown(named or model_type or '(none in config.json)')} has no table here. "
        "llama.cpp's converter may know it:\n"
        "`thriftbit quantize` offers to use it, and takes the BF16 file that convert_hf_to_gguf.py makes elsewhere."
    )


def architecture_from_gguf(name: str, metadata: Metadata) -> Architecture:
    """Return the architecture of a GGUF. Raises ThriftbitError for an unknown one.

    name: GGUF's `general.architecture`. metadata: tells families of the same name apart."""
    named = [architecture for architecture in known_architectures().values() if architecture.gguf_name == name]
    for architecture in named:
        if architecture.recognised is not None and architecture.recognised(architecture.dimensions(metadata)):
            return architecture
    for architecture in named:
        if architecture.recognised is None:
            return architecture
    raise ThriftbitError(
        f"The GGUF architecture {shown(name)} has no table here: it can be quantized and run, but not measured or "
        "calibrated"
    )
