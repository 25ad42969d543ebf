"""Searches models on the Hugging Face Hub by words, and tells each file's precision by its name and size.

Two requests are sent at once, for repositories with GGUF files and with safetensors, the most downloaded first. Then
one request for each repository asks for the sizes of its files. The Hub knows how many weights a model has, so sizes
give bits per weight and reveal wrong names. With `look`, the headers of GGUF files are read by ranges, some megabytes
for each, because the vocabulary comes before the tensors. Weights are never read.

Requests use huggingface_hub's session, so that its log-in, proxies and mirror (HF_ENDPOINT) apply. Its `list_models` is
not used, because it retries for minutes while a person waits at a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, ModelInfo, constants
from huggingface_hub.errors import (  # type: ignore[attr-defined]  # HTTPError is httpx's or httpx2's, as it has it
    HfHubHTTPError,
    HTTPError,
    OfflineModeIsEnabled,
)
from huggingface_hub.utils import get_session, hf_raise_for_status  # type: ignore[attr-defined]

from thriftbit.containers.gguf_reader import read_header
from thriftbit.errors import ThriftbitError
from thriftbit.library.candidate import whole_files
from thriftbit.library.content import Content, gguf_content
from thriftbit.library.kinds import KINDS, TEXT, hub_kind
from thriftbit.sources.hub import HubId, file_url
from thriftbit.sources.hub_headers import headers_for
from thriftbit.sources.remote_file import open_remote
from thriftbit.sources.safetensors_file import DTYPE_BITS

REPOSITORIES = 6  # of each kind, the most downloaded; more would make the answer slow and long
_PATIENCE_SECONDS = 20.0
_AT_ONCE = 6
_EXPAND = ("downloads", "gated", "gguf", "pipeline_tag", "safetensors")


@dataclass(frozen=True)
class HubFile:
    """A model on the Hub: a GGUF file with all its parts, or a repository of safetensors.

    files: the parts of a GGUF, () for safetensors. types: (dtype, number of weights) of safetensors. content: of a GGUF
    whose header was read. claimed_kind: one of `kinds.KINDS`, by what the Hub says."""

    repository: str
    files: tuple[str, ...]
    size_bytes: int
    parameters: int | None
    downloads: int
    gated: bool
    types: tuple[tuple[str, int], ...] = ()
    content: Content | None = None
    problem: str | None = None
    claimed_kind: str = TEXT

    @property
    def kind(self) -> str:
        return self.content.kind if self.content else self.claimed_kind

    @property
    def name(self) -> str:
        return f"{self.repository}/{self.files[0]}" if self.files else self.repository


@dataclass(frozen=True)
class HubAnswer:
    """problem: a sentence on why there is no answer, or only a part of it; None for a complete answer."""

    files: tuple[HubFile, ...]
    problem: str | None = None


def search_hub(words: Sequence[str], *, look: bool = False) -> HubAnswer:
    """Return GGUF files and originals in repositories whose names contain all words. If the Hub cannot answer, nothing
    is raised, and the answer says so. look: read the headers of GGUF files."""
    if constants.HF_HUB_OFFLINE:
        return HubAnswer((), "HF_HUB_OFFLINE is set, so the Hub was not asked.")
    try:
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            with_gguf, with_safetensors = pool.map(lambda kind: _repositories(words, kind), ("gguf", "safetensors"))
            originals = {info.id: info for info in with_safetensors if not _says_gguf(info)}
            files = [file for info in originals.values() if (file := _original(info)) is not None]
            problems: list[str] = []
            for found in pool.map(_files_of, with_gguf):
                files += found.files
                problems += [found.problem] if found.problem else []
            if look:
                files = list(pool.map(_looked_into, files))
    except (HTTPError, OSError, ValueError) as error:
        return HubAnswer((), plain_reason(error))
    return HubAnswer(tuple(files), problems[0] if problems else None)


def plain_reason(error: Exception) -> str:
    """Return sentences on why the Hub did not answer, and what to do."""
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set, so the Hub was not asked."
    if isinstance(error, HfHubHTTPError) and error.response is not None:
        status = error.response.status_code
        if status == 429:
            wait = error.response.headers.get("Retry-After", "")
            when = f"in {wait} seconds" if wait.isdecimal() else "in a few minutes"
            return f"The Hub refuses more requests from here for now (429). Try again {when}, or log in: hf auth login"
        if status in (401, 403):
            return f"The Hub asks for a log-in ({status}): log in with `hf auth login`, or renew an old token."
        return f"The Hub refused ({status}). Try again later."
    if isinstance(error, ValueError):
        return f"{constants.ENDPOINT} answered with something that is not the Hub's; is HF_ENDPOINT right?"
    reason = str(error).partition("\n")[0].strip() or type(error).__name__
    return f"The Hub cannot be reached ({reason}). Check the network; --local searches this disk only."


def _repositories(words: Sequence[str], kind: str) -> list[ModelInfo]:
    """kind: "gguf" or "safetensors", as the Hub tags repositories"""
    parameters: list[tuple[str, str | int | float | bool | None]] = [
        ("search", " ".join(words)), ("filter", kind), ("sort", "downloads"), ("limit", REPOSITORIES),
        *(("expand", field) for field in _EXPAND),
    ]  # fmt: skip
    url = f"{constants.ENDPOINT}/api/models"
    response = get_session().get(url, params=parameters, headers=headers_for(url), timeout=_PATIENCE_SECONDS)
    hf_raise_for_status(response)
    answer = response.json()
    if not isinstance(answer, list):
        raise ValueError("no list")
    items = (item for item in answer[:REPOSITORIES] if isinstance(item, dict) and _is_name(item.get("id")))
    return [ModelInfo(**item) for item in items]  # type: ignore[no-untyped-call]


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 200 and value.isprintable()


def _says_gguf(info: ModelInfo) -> bool:
    return bool(info.gguf) or info.id.lower().endswith("gguf")


def _original(info: ModelInfo) -> HubFile | None:
    types = _types(info)
    if not types:
        return None
    size_bytes = sum(count * DTYPE_BITS[dtype] for dtype, count in types) // 8
    plain = all(dtype in ("F64", "F32", "F16", "BF16") or dtype.startswith("F8") for dtype, _ in types)
    parameters = (
        sum(count for _, count in types) if plain else None
    )  # for packed weights, the Hub counts the numbers that hold them
    kind = hub_kind(_text(info.pipeline_tag), None, "")
    downloads = _whole(info.downloads) or 0
    return HubFile(info.id, (), size_bytes, parameters, downloads, bool(info.gated), types, claimed_kind=kind)


def _types(info: ModelInfo) -> tuple[tuple[str, int], ...]:
    counts = getattr(info.safetensors, "parameters", None)
    if not isinstance(counts, dict):
        return ()
    return tuple((dtype, n) for dtype, count in counts.items() if (n := _whole(count)) and dtype in DTYPE_BITS)


def _files_of(info: ModelInfo) -> HubAnswer:
    """Return the GGUF files of a repository. Parts of a split file are together."""
    try:
        detailed = HfApi().model_info(info.id, files_metadata=True, timeout=_PATIENCE_SECONDS)
    except (HTTPError, OSError, ValueError) as error:
        return HubAnswer((), f"{info.id}: {plain_reason(error)}")
    known = info.gguf if isinstance(info.gguf, dict) else {}
    parameters, architecture = _whole(known.get("total")), _text(known.get("architecture"))
    sizes = {file.rfilename: _whole(file.size) or 0 for file in detailed.siblings or [] if _is_name(file.rfilename)}
    gated, downloads = bool(detailed.gated or info.gated), _whole(info.downloads) or 0
    files = (
        HubFile(
            repository=info.id,
            files=tuple(names),
            size_bytes=sum(sizes[name] for name in names),
            parameters=parameters,
            downloads=downloads,
            gated=gated,
            claimed_kind=hub_kind(_text(info.pipeline_tag), architecture, names[0]),
        )
        for names in whole_files(list(sizes))
    )
    return HubAnswer(tuple(file for file in files if KINDS[file.kind].is_whole))


def _looked_into(file: HubFile) -> HubFile:
    """Return the file with what its headers say is in it. The parts of a split file are read one after the other."""
    if not file.files:
        return file
    try:
        headers = []
        for name in file.files:
            stream, size_bytes = open_remote(file_url(HubId(file.repository), name), f"{file.repository}/{name}")
            headers.append(read_header(Path(name), stream, size_bytes, any_byte_order=True))
        return replace(file, content=gguf_content(headers))
    except (ThriftbitError, OSError) as error:
        return replace(file, problem=str(error))


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 60 else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
