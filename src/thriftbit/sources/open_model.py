"""What a model's name means: the one place that decides it.

A file or folder of that name comes first: a folder is a Hugging Face checkpoint, a file is a GGUF (told by its first
bytes, since Ollama's have no suffix). What is not on disk and looks like "owner/name" is a repository on the Hub.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from thriftbit.containers.gguf_values import MAGIC
from thriftbit.containers.regular_files import open_regular
from thriftbit.errors import ThriftbitError, shown
from thriftbit.sources.architectures import Architecture, find_architecture
from thriftbit.sources.architectures.rows import EMBEDDING
from thriftbit.sources.born_small import born_packed
from thriftbit.sources.checkpoint import Checkpoint, is_pickle, open_checkpoint, pickle_refused, read_config
from thriftbit.sources.converter import ConverterOptions, converted_model
from thriftbit.sources.converter.converted import usable_converter
from thriftbit.sources.gguf_source import check_precision, open_gguf
from thriftbit.sources.hub import download, parse_hub_id
from thriftbit.sources.identity import is_as_opened
from thriftbit.sources.model import Model
from thriftbit.sources.model_card import general_metadata
from thriftbit.sources.packed import find_packing, refuse_unread
from thriftbit.sources.tensor import Tensor
from thriftbit.sources.tokenizers import tokenizer_metadata

_logger = logging.getLogger(__name__)


def open_model(
    source: str | Path,
    *,
    offline: bool = False,
    allow_requantize: bool = False,
    converter: ConverterOptions | None = None,
    next_token_layers: bool = True,
) -> Model:
    """Return the model. Its weights stay on disk until they are read.

    source: a folder, a GGUF file (any part of a split one), or a hub id "owner/name", perhaps "owner/name@revision".
    offline: take hub ids from the cache only. allow_requantize: accept a GGUF that is quantized already, with a
    warning. converter: where llama.cpp's converter is and what it may do, for classes that have no table here.
    next_token_layers: take layers that guess the tokens after the next (MTP), where a checkpoint has them.
    The size of a download is logged before it begins.
    Raises ThriftbitError for everything that is wrong with the model."""
    model = open_as_it_is(source, offline=offline, converter=converter, next_token_layers=next_token_layers)
    check_precision(model, allow_requantize=allow_requantize)
    return model


def open_as_it_is(
    source: str | Path,
    *,
    offline: bool = False,
    converter: ConverterOptions | None = None,
    next_token_layers: bool = True,
) -> Model:
    """Return the model, as from `open_model`, but not to be quantized: its weights may be quantized already."""
    model = _opened(source, offline, converter or ConverterOptions(), next_token_layers)
    is_as_opened(model)
    return model


def _opened(source: str | Path, offline: bool, options: ConverterOptions, next_token_layers: bool) -> Model:
    path = Path(source).expanduser()
    if path.is_dir():
        return _open_folder(path, str(source), options, next_token_layers)
    if path.exists() or path.is_symlink():
        return _open_file(path)
    hub_id = parse_hub_id(str(source))
    if hub_id is None:
        raise ThriftbitError(
            f"{source} does not exist; a model is a folder, a GGUF file, or a name on the Hugging Face Hub (owner/name)"
        )
    folder = download(hub_id, offline=offline, check=lambda folder: _check_configuration(folder, str(hub_id), options))
    return _open_folder(folder, str(hub_id), options, next_token_layers)


def _open_folder(folder: Path, source: str, options: ConverterOptions, next_token_layers: bool) -> Model:
    checkpoint = open_checkpoint(folder)
    if checkpoint.packing is not None and any(tensor.is_packed for tensor in checkpoint.tensors.values()):
        _logger.info(f"Note: {born_packed(checkpoint.packing, checkpoint.config).advice}")
    if has_table(checkpoint.config):
        return model_of(checkpoint, source, next_token_layers)
    return converted_model(checkpoint, source, options)


def has_table(config: Mapping[str, Any]) -> bool:
    """config: a checkpoint's config.json. Returns whether its class is one of the families in `architectures/`."""
    try:
        find_architecture(config)
    except ThriftbitError:
        return False
    return True


def model_of(checkpoint: Checkpoint, source: str, next_token_layers: bool = True) -> Model:
    """checkpoint: of a class that has a table. source: what the user calls it. next_token_layers: whether layers that
    guess the tokens after the next (MTP) are taken, where there are any.

    Returns the checkpoint in GGUF's terms; nothing of its weights is read."""
    architecture = find_architecture(checkpoint.config)
    checkpoint = architecture.settled(checkpoint, next_token_layers)
    if left_out := architecture.other_parts(checkpoint):
        _logger.info(f"Note: only the text part is taken; the part for {' and '.join(left_out)} is left out.")
    for limitation in architecture.limitations(checkpoint.config):
        _logger.info(f"Note: {limitation}")
    tensors = _mapped(architecture, checkpoint)
    vocabulary_size = next(tensor.rows for tensor in tensors if tensor.name == EMBEDDING)
    metadata = general_metadata(checkpoint, tensors)
    metadata |= architecture.metadata(checkpoint.config)
    metadata |= tokenizer_metadata(checkpoint, vocabulary_size, str(metadata["general.name"]))
    return Model(architecture.gguf_name, metadata, tensors, source, config=checkpoint.config, folder=checkpoint.path)


def _mapped(architecture: Architecture, checkpoint: Checkpoint) -> tuple[Tensor, ...]:
    try:
        return tuple(architecture.map_tensors(checkpoint))
    except ThriftbitError as error:
        if not checkpoint.withdrawn:
            raise
        tensor, shard = next(iter(checkpoint.withdrawn.items()))
        raise ThriftbitError(
            f"{error}\n{shard} does not hold {shown(tensor)}, although the index says so: download that file again"
        ) from None


def _check_configuration(folder: Path, source: str, options: ConverterOptions) -> None:
    """Raise ThriftbitError if neither Thriftbit nor llama.cpp's converter knows the model. The folder needs to hold no
    more than the configuration."""
    config = read_config(folder)
    if has_table(config):
        find_architecture(config).metadata(config)
        if packing := find_packing(config, folder):
            refuse_unread(packing, str(folder))
    else:
        usable_converter(config, source, options)


def _open_file(path: Path) -> Model:
    with open_regular(path) as file:
        is_gguf = file.read(len(MAGIC)) == MAGIC
    if path.suffix == ".safetensors":
        raise ThriftbitError(f"{path} is a part of a checkpoint: give its folder, {path.parent}")
    if not is_gguf and is_pickle(path.name):
        raise pickle_refused(str(path.parent), path.name)
    return open_gguf(path)
