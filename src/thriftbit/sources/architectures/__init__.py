"""Model families that can be quantized, found from the files in `families/`.

Each file there defines one `ARCHITECTURE`; to add a family, add a file.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from typing import Any

from thriftbit.containers.gguf_values import Metadata
from thriftbit.errors import ThriftbitError
from thriftbit.sources.architectures import families
from thriftbit.sources.architectures.architecture import Architecture
from thriftbit.sources.architectures.roles import role_of

__all__ = ["Architecture", "architecture_from_gguf", "find_architecture", "known_architectures", "role_of"]


@cache
def known_architectures() -> Mapping[str, Architecture]:
    """-> family name (its file's) -> architecture, in alphabetical order"""
    names = sorted(module.name for module in pkgutil.iter_modules(families.__path__))
    return {name: import_module(f"{families.__name__}.{name}").ARCHITECTURE for name in names}


def find_architecture(config: Mapping[str, Any]) -> Architecture:
    """config: a checkpoint's config.json. Its class decides, its model type where no class is named. `LlamaModel` is
    taken for `LlamaForCausalLM`, whose weights it has but for an output matrix. An unknown class is a ThriftbitError
    that lists the known ones."""
    classes = config.get("architectures")
    named = classes[0] if isinstance(classes, list) and classes else None
    model_type = config.get("model_type")
    headed = (
        named.removesuffix("Model") + "ForCausalLM" if isinstance(named, str) and named.endswith("Model") else named
    )
    for architecture in known_architectures().values():
        named_here = named in architecture.classes or headed in architecture.classes
        if named_here or (named is None and model_type in architecture.model_types):
            return architecture
    known = ", ".join(sorted(name for architecture in known_architectures().values() for name in architecture.classes))
    raise ThriftbitError(
        f"Architecture {named or model_type or '(none in config.json)'!s} is not known. Known are: {known}."
    )


def architecture_from_gguf(name: str, metadata: Metadata) -> Architecture:
    """name: GGUF's `general.architecture`; metadata: with its expert count, since one name can stand for models with
    experts and without. Unknown is a ThriftbitError."""
    experts = metadata.get(f"{name}.expert_count", 0)
    for architecture in known_architectures().values():
        if architecture.gguf_name == name and architecture.has_experts == bool(experts):
            return architecture
    known = ", ".join(sorted({architecture.gguf_name for architecture in known_architectures().values()}))
    raise ThriftbitError(f"GGUF architecture {name!r} is not known. Known are: {known}.")
