"""Whose model it is: the `general.*` metadata of a checkpoint.

Name, author, licence, base model, languages and the like, under the keys that llama.cpp's own converter writes and
that Hugging Face and LM Studio show. Of these sources, the first that has a value decides: the YAML at the top of
README.md (the model card), the repository's name on the Hub, `_name_or_path` in config.json, the folder's name. The
size label is counted, not guessed, and the author's recommended sampling comes from generation_config.json. If a card
cannot be read, only its metadata are missing. Left out: splitting the name into base name, version and finetune, which
is guesswork.

Keys: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md#general-metadata
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import yaml  # type: ignore[import-untyped]

from thriftbit.containers.gguf_values import MetadataValue
from thriftbit.containers.regular_files import open_regular
from thriftbit.errors import ThriftbitError
from thriftbit.sources.checkpoint import Checkpoint
from thriftbit.sources.hub import parse_hub_id, repository_of
from thriftbit.sources.json_object import read_json_object
from thriftbit.sources.tensor import Tensor

_logger = logging.getLogger(__name__)

CARD_LIMIT_BYTES = 256 << 10  # of front matter; more would take the YAML parser many seconds

# GGUF key -> the card's keys for it, the first that is there
CARD_TEXTS: dict[str, tuple[str, ...]] = {
    "general.name": ("model_name", "name"),
    "general.author": ("model_author", "model_creator", "author"),
    "general.organization": ("model_organization", "organization"),
    "general.version": ("model_version", "version"),
    "general.description": ("model_description", "description"),
    "general.basename": ("model_basename", "basename"),
    "general.finetune": ("model_finetune", "finetune"),
    "general.license": ("license",),
    "general.license.name": ("license_name",),
    "general.license.link": ("license_link",),
    "general.source.url": ("model_url", "url"),
    "general.source.doi": ("model_doi", "doi"),
    "general.source.repo_url": ("model_repo_url", "repo_url"),
}
# GGUF key -> the card's keys, whose values are joined into one list
CARD_LISTS: dict[str, tuple[str, ...]] = {
    "general.tags": ("tags", "pipeline_tag"),
    "general.languages": ("languages", "language"),
}
# what GGUF calls a list of other repositories -> the card's keys for it, the first that is there
CARD_REPOSITORIES: dict[str, tuple[str, ...]] = {
    "base_model": ("base_model", "base_models", "base_model_sources"),
    "dataset": ("datasets", "dataset", "dataset_sources"),
}
# generation_config.json -> GGUF key and type
SAMPLING: dict[str, tuple[str, type[np.int32] | type[np.float32]]] = {
    "top_k": ("general.sampling.top_k", np.int32),
    "top_p": ("general.sampling.top_p", np.float32),
    "min_p": ("general.sampling.min_p", np.float32),
    "temperature": ("general.sampling.temp", np.float32),
    "repetition_penalty": ("general.sampling.penalty_repeat", np.float32),
}


def general_metadata(
    checkpoint: Checkpoint, tensors: Sequence[Tensor], warn: Callable[[str], None] = _logger.warning
) -> dict[str, MetadataValue]:
    """Return the `general.*` keys of a checkpoint whose tensors, in GGUF's terms, are `tensors`."""
    card = _model_card(checkpoint, warn)
    metadata: dict[str, MetadataValue] = {"general.type": "model"}
    metadata |= _identity(checkpoint)
    metadata |= {key: text for key, names in CARD_TEXTS.items() if (text := _first_text(card, names))}
    metadata["general.size_label"] = size_label(tensors)
    for key, names in CARD_LISTS.items():
        if values := [text for name in names for text in _texts(card.get(name))]:
            metadata[key] = values
    for kind, names in CARD_REPOSITORIES.items():
        metadata |= _repositories(kind, _texts(next((card[name] for name in names if name in card), None)))
    return metadata | _sampling(checkpoint)


def size_label(tensors: Sequence[Tensor]) -> str:
    """Return the number of parameters as people say it: "135M", "1.5B"; "8x7B" for eight experts of seven billion, each
    counted with everything the experts share."""
    experts = [tensor for tensor in tensors if len(tensor.shape) == 3]
    count = experts[0].shape[0] if experts else 1
    expert_parameters = sum(tensor.parameters for tensor in experts)
    parameters = sum(tensor.parameters for tensor in tensors) - expert_parameters + expert_parameters // count
    scale, suffix = next((pair for pair in ((1e12, "T"), (1e9, "B"), (1e6, "M")) if parameters > pair[0]), (1e3, "K"))
    digits = 1 if parameters / scale < 9.5 else 0
    return (f"{count}x" if experts else "") + f"{parameters / scale:.{digits}f}{suffix}"


def _model_card(checkpoint: Checkpoint, warn: Callable[[str], None]) -> Mapping[str, Any]:
    """Return the front matter of README.md, scalars as text (so that the
    language "no" stays Norwegian); {} without one."""
    path = checkpoint.file("README.md")
    if path is None:
        return {}
    with open_regular(path) as file:
        lines = file.read(CARD_LIMIT_BYTES).decode("utf-8-sig", errors="replace").splitlines()
    if not lines or lines[0].rstrip() != "---":
        return {}
    end = next((number for number, line in enumerate(lines) if number and line.rstrip() == "---"), 0)  # 0: never closed
    try:
        card = yaml.load("\n".join(lines[1:end]).replace("\t", "  "), Loader=yaml.BaseLoader) or {}
    except (yaml.YAMLError, RecursionError, ValueError):
        card = None
    if not isinstance(card, dict):
        warn(f"The model card {path} cannot be read, so the file states neither licence nor author.")
        return {}
    return card


def _identity(checkpoint: Checkpoint) -> dict[str, MetadataValue]:
    """Return name, and where known organization and address, from what the repository or folder is called."""
    repository = repository_of(checkpoint.path) or next(iter(_texts(checkpoint.config.get("_name_or_path"))), "")
    identifier = parse_hub_id(repository) if repository else None
    if identifier is None:
        return {"general.name": _title(checkpoint.path.resolve().name) or "model"}
    owner, _, name = identifier.repository.partition("/")
    return {
        "general.name": _title(name),
        "general.organization": _title(owner),
        "general.source.repo_url": f"https://huggingface.co/{identifier.repository}",
    }


def _repositories(kind: str, names: Sequence[str]) -> dict[str, MetadataValue]:
    """Return `general.<kind>.*`: how many, and of each the name and, for those on the Hub, organization and address."""
    metadata: dict[str, MetadataValue] = {f"general.{kind}.count": np.uint32(len(names))} if names else {}
    for index, text in enumerate(names):
        key = f"general.{kind}.{index}"
        identifier = parse_hub_id(text.removeprefix("https://huggingface.co/datasets/"))
        if identifier is None:
            metadata[f"{key}.repo_url" if "://" in text else f"{key}.name"] = text
            continue
        owner, _, name = identifier.repository.partition("/")
        folder = "datasets/" if kind == "dataset" else ""
        metadata[f"{key}.name"] = _title(name)
        metadata[f"{key}.organization"] = _title(owner)
        metadata[f"{key}.repo_url"] = f"https://huggingface.co/{folder}{identifier.repository}"
    return metadata


def _sampling(checkpoint: Checkpoint) -> dict[str, MetadataValue]:
    path = checkpoint.file("generation_config.json")
    try:
        settings = read_json_object(path) if path else {}
    except ThriftbitError:
        return {}  # recommended sampling is advice; a model works without it
    values = ((key, dtype, settings.get(name)) for name, (key, dtype) in SAMPLING.items())
    return {
        key: dtype(value)
        for key, dtype, value in values
        if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e6
    }


def _title(name: str) -> str:
    """ "SmolLM2-135M-instruct" -> "SmolLM2 135M Instruct": hyphens to spaces, words of small letters capitalized"""
    words = name.replace("-", " ").split()
    return " ".join(word.capitalize() if word.islower() and word.isalpha() else word for word in words)


def _first_text(card: Mapping[str, Any], names: Sequence[str]) -> str | None:
    return next((", ".join(texts) for name in names if (texts := _texts(card.get(name)))), None)


def _texts(value: Any) -> list[str]:
    """Return the value's texts, of one or of a list, without those that are empty or cannot be written as UTF-8."""
    values = value if isinstance(value, list) else [value]
    return [text for item in values if isinstance(item, str) and (text := _clean(item))]


def _clean(text: str) -> str:
    return text.encode("utf-8", errors="ignore").decode().strip()
