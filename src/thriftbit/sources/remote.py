"""A model known by its description only: configuration, headers of files, tokenizer. Weights are never read.

The size of a file, its tensors and the growth of its cache follow from the description. So nothing large is downloaded:
only the small files of a repository on the Hub, and the headers of safetensors and GGUF files, by ranges.

There are three degrees of knowledge, and the user is told which applies. If the model could be quantized, the size is
exact to the byte. With the configuration alone, the family's table gives the tensors, and the tokenizer's share of the
file is estimated. For a class without a table, tensors come from headers alone, under llama.cpp's names where it has
any.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from gguf import LlamaFileType

from thriftbit.containers.gguf_reader import read_header
from thriftbit.containers.gguf_values import Metadata, MetadataValue
from thriftbit.errors import ThriftbitError, enumeration, shown
from thriftbit.sources import safetensors_file
from thriftbit.sources.architectures import find_architecture
from thriftbit.sources.architectures.architecture import Architecture
from thriftbit.sources.architectures.rows import EMBEDDING
from thriftbit.sources.born_small import BornSmall, born_small
from thriftbit.sources.checkpoint import CONFIG, Checkpoint, open_checkpoint, weight_files
from thriftbit.sources.gguf_source import model_of_parts, open_gguf, read_parts
from thriftbit.sources.hub import HubId, describe, file_url, parse_hub_id
from thriftbit.sources.json_object import read_json_object
from thriftbit.sources.model import Model
from thriftbit.sources.model_card import general_metadata
from thriftbit.sources.open_model import model_of
from thriftbit.sources.packed import METHODS, find_packing, unpacked, without_packing
from thriftbit.sources.remote_file import open_remote
from thriftbit.sources.remote_names import gguf_architecture, translated, translated_metadata
from thriftbit.sources.tensor import FloatArray, Tensor, WeightsElsewhereError
from thriftbit.sources.tokenizers import tokenizer_metadata

_logger = logging.getLogger(__name__)

_DTYPES = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}
_REMOTE_GGUF = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+)/(?P<file>[\w./-]+\.gguf)", re.ASCII)


@dataclass(frozen=True)
class Outline:
    """model: complete except that its weights may be unreadable. tokenizer_known: whether the metadata are those of the
    file, so that sizes are exact to the byte. translated: whether tensor names come from llama.cpp's lists alone.
    note: a sentence on how the model is converted, "" if there is nothing to say. obstacle: a sentence on why Thriftbit
    cannot quantize it, "" if it can. born: whether and how it was quantized before. file_bytes: the bytes of all parts
    of a GGUF, None for anything else. weights_there: whether the folder or repository has the weights, if not perhaps
    this computer. level: what a GGUF says it is ("Q4_K_M"), "" for anything else."""

    model: Model
    tokenizer_known: bool = True
    translated: bool = False
    note: str = ""
    obstacle: str = ""
    born: BornSmall | None = None
    file_bytes: int | None = None
    weights_there: bool = True
    level: str = ""


def open_outline(source: str | Path, *, offline: bool = False) -> Outline:
    """Return the model's description.

    source: a folder (with weights or with nothing but a config.json), a config.json, a GGUF file here or on a server
    (its address, or "owner/name/file.gguf" on the Hub), or a hub id. offline: nothing but what is here or in the cache.
    Raises ThriftbitError if the description is missing, damaged, out of reach, or says too little."""
    path, text = Path(source).expanduser(), str(source)
    if path.name == CONFIG and path.is_file():
        return _from_configuration(path.parent, read_json_object(path), str(path.parent))
    if path.is_dir():
        return _open_folder(path, text)
    if path.exists() or path.is_symlink():
        model = open_gguf(path)
        parts = read_parts(path)
        return _of_gguf(model, path.name, parts[0].metadata, sum(part.file_size_bytes for part in parts))
    if text.startswith(("http://", "https://")) and text.partition("?")[0].endswith(".gguf"):
        return _open_remote_gguf(text, text.rpartition("/")[2], offline)
    if match := _REMOTE_GGUF.fullmatch(text):
        return _open_remote_gguf(file_url(HubId(match["repository"]), match["file"]), text, offline)
    hub_id = parse_hub_id(text)
    if hub_id is None:
        raise ThriftbitError(
            f"{source} does not exist; a model is a folder, a GGUF file, or a name on the Hugging Face Hub (owner/name)"
        )
    return _open_repository(hub_id, offline)


def _open_folder(folder: Path, source: str) -> Outline:
    if not (folder / CONFIG).is_file():
        open_checkpoint(folder)  # raises the error that says what is wrong
    config = read_json_object(folder / CONFIG)
    if not any(folder.glob("*.safetensors")):
        return _from_configuration(folder, config, source)
    packing = find_packing(config, folder)
    if packing is not None and packing.method not in METHODS:
        return _from_configuration(folder, config, source, there=True)
    checkpoint = open_checkpoint(folder)
    if _known(config) is not None:
        return Outline(model_of(checkpoint, source), born=born_small(config, name=source, folder=folder))
    return _from_headers(checkpoint, config, source)


def _open_repository(hub_id: HubId, offline: bool) -> Outline:
    folder, sizes = describe(hub_id, offline=offline)
    if not sizes:
        return _named(_open_folder(folder, str(hub_id)), str(hub_id))
    if CONFIG not in sizes:
        ggufs = sorted(name for name in sizes if name.endswith(".gguf"))
        if ggufs:
            raise ThriftbitError(
                f"{hub_id} holds GGUF files ({enumeration(ggufs)}): give one of them, for example {hub_id}/{ggufs[0]}"
            )
        raise ThriftbitError(f"{hub_id} has no {CONFIG}: it is not a model in Hugging Face's layout")
    config = read_json_object(folder / CONFIG)
    if not any(name.endswith(".safetensors") for name in sizes):
        return _from_configuration(folder, config, str(hub_id))
    pinned = HubId(hub_id.repository, folder.name)
    tensors: dict[str, Tensor] = {}
    for name in weight_files(str(hub_id), folder, sizes):
        file, size_bytes = open_remote(file_url(pinned, name), f"{hub_id}/{name}")
        tensors |= safetensors_file.read_header(Path(f"{hub_id}/{name}"), file, size_bytes)
    unread = {name: replace(tensor, read=_refuse) for name, tensor in tensors.items()}
    packing, known = find_packing(config, folder), _known(config) is not None
    if packing is not None and known:
        return _from_configuration(folder, config, str(hub_id), there=True)
    checkpoint = Checkpoint(folder, without_packing(config), unpacked(unread, packing, str(hub_id)), packing)
    if known:
        return Outline(model_of(checkpoint, str(hub_id)), born=born_small(config, name=str(hub_id)))
    return _from_headers(checkpoint, config, str(hub_id))


def _open_remote_gguf(url: str, name: str, offline: bool) -> Outline:
    if offline:
        raise ThriftbitError(f"{name} is not here and may not be read offline: run without --offline")
    file, size_bytes = open_remote(url, name)
    header = read_header(Path(name), file, size_bytes)
    model = model_of_parts([header], Path(name))
    described = replace(model, tensors=tuple(replace(t, read=_refuse) for t in model.tensors), source=name)
    return _of_gguf(described, name, header.metadata, size_bytes)


def _of_gguf(model: Model, name: str, metadata: Metadata, file_bytes: int) -> Outline:
    born = born_small({}, model.tensors, name, architecture=model.architecture)
    obstacle = "It is quantized already." if model.quantized_source else ""
    return Outline(model, obstacle=obstacle, born=born, file_bytes=file_bytes, level=_level(metadata))


def _level(metadata: Metadata) -> str:
    """Return the preset that the file says it is, by llama.cpp's name; "" for a number that stands for none."""
    number = metadata.get("general.file_type")
    name = next((each.name for each in LlamaFileType if isinstance(number, np.integer) and each == number), "")
    return name.removeprefix("MOSTLY_").removeprefix("ALL_")


def _from_headers(checkpoint: Checkpoint, config: dict[str, Any], source: str) -> Outline:
    """Return the outline of a checkpoint of a class without a table.

    config: config.json as it is, with its section about packed weights."""
    plain = checkpoint.config
    architecture = gguf_architecture(plain)
    metadata = translated_metadata(plain, architecture)
    count = metadata.get(f"{architecture}.block_count")
    layers = int(count) if isinstance(count, np.integer) else 0
    tensors = translated(checkpoint.tensors.values(), architecture, layers)
    metadata, known = _with_tokenizer(checkpoint, tensors, metadata)
    note = f"{_class_of(plain)} has no table here: `thriftbit quantize` takes it through llama.cpp's own converter."
    born = born_small(config, name=source, folder=checkpoint.path)
    model = Model(architecture, metadata, tensors, source, config=config)
    return Outline(model, known, translated=True, note=note, born=born)


def _from_configuration(folder: Path, config: dict[str, Any], source: str, there: bool = False) -> Outline:
    plain, born = without_packing(config), born_small(config, name=source, folder=folder)
    architecture = _known(plain)
    if architecture is None:
        _refuse_without_weights(plain, source)
    dtype = str(plain.get("dtype", plain.get("torch_dtype", "bfloat16"))).removeprefix("torch.")
    checkpoint = Checkpoint(folder, plain, architecture.implied_tensors(plain, _DTYPES.get(dtype, "BF16")))
    tensors = tuple(architecture.map_tensors(checkpoint))
    metadata, known = _with_tokenizer(checkpoint, tensors, dict(architecture.metadata(plain)))
    obstacle = ""
    packing = find_packing(config, folder)
    if packing is not None and packing.method not in METHODS:
        obstacle = f"Its weights are packed by {shown(packing.form)}, which Thriftbit does not read."
    return Outline(
        Model(architecture.gguf_name, metadata, tensors, source, config=config),
        tokenizer_known=known,
        obstacle=obstacle,
        born=born,
        weights_there=there,
    )


def _with_tokenizer(
    checkpoint: Checkpoint, tensors: tuple[Tensor, ...], metadata: dict[str, MetadataValue]
) -> tuple[dict[str, MetadataValue], bool]:
    """Return the metadata with the tokenizer's and the card's keys added, and whether the tokenizer could be read."""
    whole: dict[str, MetadataValue] = general_metadata(checkpoint, tensors, warn=_logger.debug) | metadata
    embedding = next((tensor for tensor in tensors if tensor.name == EMBEDDING), None)
    try:
        if embedding is not None:
            return whole | tokenizer_metadata(
                checkpoint, embedding.rows, str(whole["general.name"]), _logger.debug
            ), True
    except ThriftbitError:
        pass
    return whole, False


def _known(config: Mapping[str, Any]) -> Architecture | None:
    try:
        return find_architecture(config)
    except ThriftbitError:
        return None


def _named(outline: Outline, source: str) -> Outline:
    return replace(outline, model=replace(outline.model, source=source))


def _class_of(config: Mapping[str, Any]) -> str:
    classes = config.get("architectures")
    return shown(classes[0] if isinstance(classes, list) and classes else config.get("model_type", "unnamed")).strip(
        "'"
    )


def _refuse_without_weights(config: Mapping[str, Any], source: str) -> NoReturn:
    raise ThriftbitError(
        f"{source}: {_class_of(config)} has no table here, so its size follows from the headers of its weights alone, "
        "and these are not there.\nGive the folder that holds them, or its name on the Hub (owner/name)."
    )


def _refuse(start: int, stop: int) -> FloatArray:
    raise WeightsElsewhereError("only the description of this model was fetched, and not its weights")
