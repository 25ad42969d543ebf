"""A model on the Hugging Face Hub becomes a folder in the Hub's own cache.

huggingface_hub resolves names, keeps the cache and logs in; this file does the rest. The configuration is fetched
first, so that a model we cannot read costs no download. The bytes that remain are told, and compared with the free
space. Only what quantizing needs is fetched: safetensors, JSON, tokenizer, model card.

An interrupted download continues where it stopped. huggingface_hub itself throws unfinished files away. So the large
files are fetched here over plain HTTP with ranges, checked by their SHA-256 and placed into huggingface_hub's cache.
That gives up its parallel Xet transfer, which cannot resume. On an ordinary line both are limited by the line.
"""

from __future__ import annotations

import glob
import hashlib
import logging
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock
from huggingface_hub import HfApi, constants, hf_hub_url, snapshot_download
from huggingface_hub.errors import (  # type: ignore[attr-defined]  # HTTPError is httpx's or httpx2's, as it has it
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoSibling
from huggingface_hub.utils import tqdm  # type: ignore[attr-defined]

from thriftbit.containers.atomic_file import PARTIAL_SUFFIX
from thriftbit.errors import ThriftbitError, enumeration, shown
from thriftbit.sizes import describe_bytes
from thriftbit.sources.checkpoint import CONFIG, INDEX, refuse_without_safetensors, weight_files
from thriftbit.sources.resumed_download import append_rest

_logger = logging.getLogger(__name__)

HUB_ID = re.compile(
    r"(?:(?:https://huggingface\.co/|hf://)(?:models/)?)?"
    r"(?P<repository>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@(?P<revision>\w[\w./-]*))?",
    re.ASCII,
)
CACHE_FOLDER = re.compile(r"models--(?P<owner>[\w.-]+?)--(?P<name>[\w.-]+)", re.ASCII)
SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
TOO_MANY = 429  # requests from one address
NEEDED_SUFFIXES = (".json", ".jinja", ".txt")
NEEDED_NAMES = ("tokenizer.model", "README.md")


@dataclass(frozen=True)
class HubId:
    """repository: "owner/name". revision: a branch, tag or commit."""

    repository: str
    revision: str = constants.DEFAULT_REVISION

    def __str__(self) -> str:
        pinned = self.revision != constants.DEFAULT_REVISION
        return f"{self.repository}@{self.revision}" if pinned else self.repository

    @property
    def cache(self) -> Path:
        """Where huggingface_hub keeps the repository: blobs/<etag>, refs/<revision>, snapshots/<commit>/<file>."""
        return Path(constants.HF_HUB_CACHE) / f"models--{self.repository.replace('/', '--')}"


def parse_hub_id(text: str) -> HubId | None:
    """ "owner/name", "owner/name@revision", or the model's address on the Hub -> its id; None for anything else"""
    match = HUB_ID.fullmatch(text)
    if match is None or ".." in text or "--" in match["repository"]:
        return None
    return HubId(match["repository"], match["revision"] or constants.DEFAULT_REVISION)


def repository_of(folder: Path) -> str | None:
    """Return "owner/name" of a snapshot in the Hub's cache; None for any other folder."""
    folder = folder.absolute()
    match = CACHE_FOLDER.fullmatch(folder.parent.parent.name)
    return f"{match['owner']}/{match['name']}" if match and folder.parent.name == "snapshots" else None


def download(model: HubId, *, offline: bool, check: Callable[[Path], None]) -> Path:
    """Return the folder with the model's files. Files that are not in the cache are downloaded.

    offline: use the cache only; HF_HUB_OFFLINE does the same. The size of a download is logged before it begins.
    check: is called with the folder when only its configuration is there, and raises ThriftbitError to stop.
    Raises ThriftbitError for a model that is absent, gated or without safetensors, for a full disk, and when the Hub
    cannot be reached and the cache does not have the model either."""
    if offline or constants.HF_HUB_OFFLINE:
        return _cached_or_refused(model)
    with _plain_errors(model):
        files, folder = _files_or_cached(model)
        if folder is not None:
            return folder
        refuse_without_safetensors(str(model), files)
        if CONFIG not in files:
            raise ThriftbitError(f"{model} has no {CONFIG}: it is not a model in Hugging Face's layout")
        folder = _snapshot(model, [CONFIG, INDEX])
        check(folder)
        wanted = [name for name in files if _is_description(name)]
        wanted += weight_files(str(model), folder, files)
        _check_space(model, folder, [files[name] for name in wanted])
        for name in wanted:
            _fetch_resumably(model, folder, files[name])
        return _snapshot(HubId(model.repository, folder.name), wanted)


def describe(model: HubId, *, offline: bool) -> tuple[Path, dict[str, int]]:
    """Return a folder with everything of the model but its weights (configuration, tokenizer, card, index of shards),
    and
    all its files with their sizes in bytes: {} where the Hub was not asked.

    offline, and what is raised: as for `download`."""
    if offline or constants.HF_HUB_OFFLINE:
        return _cached_or_refused(model), {}
    with _plain_errors(model):
        files, folder = _files_or_cached(model)
        if folder is not None:
            return folder, {}
        sizes = {name: file.size or 0 for name, file in files.items()}
        if CONFIG not in files:
            return Path(), sizes
        return _snapshot(model, [name for name in files if _is_description(name)]), sizes


def file_sizes(model: HubId) -> dict[str, int] | None:
    """Return all files of the repository on the Hub, in folders too, with their sizes in bytes; None where the Hub
    cannot be reached. Raises ThriftbitError for a repository that is absent or gated."""
    try:
        return {name: file.size or 0 for name, file in _all_files(model).items()}
    except (HTTPError, OSError) as error:
        if _is_refusal(error):
            with _plain_errors(model):
                raise
        return None


def download_files(model: HubId, names: Sequence[str]) -> Path:
    """Return the folder in the Hub's cache that holds these files. Files that are missing are downloaded.

    names: paths inside the repository. Raises ThriftbitError
    for a file that is absent, a repository that is gated, and a full disk."""
    with _plain_errors(model):
        files = _all_files(model)
        missing = [name for name in names if name not in files]
        if missing:
            raise ThriftbitError(f"{model} has no file {enumeration(missing)}")
        folder = _snapshot(model, ["README.md"])
        _check_space(model, folder, [files[name] for name in names])
        for name in names:
            _fetch_resumably(model, folder, files[name])
        return _snapshot(HubId(model.repository, folder.name), [glob.escape(name) for name in names])


def download_checkpoint(model: HubId, *, offline: bool = False) -> Path:
    """Return the folder with a model in safetensors, of any class. Files that are not in the cache are downloaded."""
    return download(model, offline=offline, check=lambda folder: None)


def file_url(model: HubId, name: str) -> str:
    """Return where a file of the repository is read from."""
    return hf_hub_url(model.repository, name, revision=model.revision, endpoint=constants.ENDPOINT)


def _cached_or_refused(model: HubId) -> Path:
    folder = _cached(model)
    if folder is None:
        raise ThriftbitError(
            f"{model} is not in the cache ({constants.HF_HUB_CACHE}) and may not be fetched offline: "
            "run once without --offline"
        )
    return folder


def _is_description(name: str) -> bool:
    return name.endswith(NEEDED_SUFFIXES) or name in NEEDED_NAMES


def _files(model: HubId) -> dict[str, RepoSibling]:
    """Return the files at the top of the repository (below are copies for other programs), by name."""
    return {name: file for name, file in _all_files(model).items() if "/" not in name}


def _all_files(model: HubId) -> dict[str, RepoSibling]:
    information = HfApi().model_info(model.repository, revision=model.revision, files_metadata=True)
    return {file.rfilename: file for file in information.siblings or []}


def _files_or_cached(model: HubId) -> tuple[dict[str, RepoSibling], Path | None]:
    """Return the files on the Hub; or, where it cannot be reached, the folder in the cache."""
    try:
        return _files(model), None
    except (HTTPError, OSError) as error:
        if _is_refusal(error):
            raise
        folder, reason = _cached(model), _reason(error)
    if folder is None:
        raise ThriftbitError(
            f"{model}: the Hub cannot be reached ({reason}), and {constants.HF_HUB_CACHE} does not have the model. "
            "Check the network; `thriftbit find` shows what is on this disk"
        )
    _logger.info(f"The Hub cannot be reached ({reason}): using the cached copy of {model}.")
    return {}, folder


def _snapshot(model: HubId, names: list[str], *, offline: bool = False) -> Path:
    folder = snapshot_download(
        model.repository,
        revision=model.revision,
        allow_patterns=names,
        local_files_only=offline,
        tqdm_class=_NoProgressBar,
    )
    return Path(folder)


def _cached(model: HubId) -> Path | None:
    try:
        return _snapshot(model, [CONFIG], offline=True)
    except LocalEntryNotFoundError:
        return None


def _blob(model: HubId, file: RepoSibling) -> Path:
    """Return where the cache keeps the content of a large file. The path depends on the content alone.

    Raises ThriftbitError if the server's listing has no SHA-256 of it: a server could name any path in its place."""
    sha256 = file.lfs.sha256 if file.lfs else None
    if not isinstance(sha256, str) or not SHA256.fullmatch(sha256):
        raise ThriftbitError(
            f"{model}: {constants.ENDPOINT} gives {shown(sha256)} as the SHA-256 of {shown(file.rfilename)}, "
            "so the file cannot be checked; is HF_ENDPOINT right?"
        )
    return model.cache / "blobs" / sha256


def _partial(blob: Path) -> Path:
    return blob.with_name(blob.name + PARTIAL_SUFFIX)


def _check_space(model: HubId, folder: Path, files: list[RepoSibling]) -> None:
    total = sum(file.size or 0 for file in files)
    absent = [file for file in files if not (folder / file.rfilename).exists()]
    blobs = {file.rfilename: _blob(model, file) for file in absent if file.lfs}
    absent = [file for file in absent if not file.lfs or not blobs[file.rfilename].exists()]
    begun = [_partial(blobs[file.rfilename]) for file in absent if file.lfs]
    missing_bytes = sum(file.size or 0 for file in absent) - sum(path.stat().st_size for path in begun if path.exists())
    if not absent:
        _logger.info(f"{model}: all {describe_bytes(total)} are in the cache already.")
        return
    cache = constants.HF_HUB_CACHE
    _logger.info(f"{model}: downloading {describe_bytes(missing_bytes)} of {describe_bytes(total)} into {cache}.")
    free_bytes = shutil.disk_usage(folder).free
    if missing_bytes > free_bytes:
        raise ThriftbitError(
            f"{model} takes another {describe_bytes(missing_bytes)}, and {cache} has {describe_bytes(free_bytes)} "
            "free: make room, or set HF_HOME to a folder on a larger disk"
        )


def _fetch_resumably(model: HubId, folder: Path, file: RepoSibling) -> None:
    """Download a large file into the cache's blobs, where `_snapshot` finds it. Does nothing for small files, which
    `_snapshot` downloads itself."""
    size = file.size or 0
    if file.lfs is None or size > constants.MAX_HTTP_DOWNLOAD_SIZE or (folder / file.rfilename).exists():
        return
    blob = _blob(model, file)
    lock = Path(constants.HF_HUB_CACHE) / ".locks" / model.cache.name / f"{blob.name}.lock"  # huggingface_hub's own
    for parent in (lock.parent, blob.parent):
        parent.mkdir(parents=True, exist_ok=True)
    partial = _partial(blob)
    with FileLock(lock):
        if blob.exists():
            return
        url = file_url(HubId(model.repository, folder.name), file.rfilename)
        with partial.open("ab") as stream:
            if stream.tell() > size:
                stream.seek(0)
                stream.truncate()
            append_rest(url, stream, size, file.rfilename)
        with partial.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        if digest != file.lfs.sha256:
            partial.unlink()
            raise ThriftbitError(f"{model}: {file.rfilename} arrived damaged and was thrown away. Download it again")
        partial.replace(blob)


@contextmanager
def _plain_errors(model: HubId) -> Iterator[None]:
    page = f"https://huggingface.co/{model.repository}"
    try:
        yield
    except GatedRepoError:
        raise ThriftbitError(
            f"{model} is gated: accept its terms at {page}, then log in with `hf auth login`"
        ) from None
    except RepositoryNotFoundError:
        raise ThriftbitError(
            f"{model} is neither a file or folder here nor a public model on the Hub; for a private one, log in with "
            "`hf auth login`"
        ) from None
    except RevisionNotFoundError:
        raise ThriftbitError(f"{model.repository} has no revision {model.revision!r}; see {page}/tree/main") from None
    except HFValidationError as error:
        raise ThriftbitError(f"{model} is not a name the Hub accepts: {error}") from None
    except HfHubHTTPError as error:
        status = error.response.status_code
        again = "Wait a few minutes, or log in with `hf auth login`" if status == TOO_MANY else "Try again later"
        raise ThriftbitError(f"{model}: the Hub refused ({status}). {again}") from None
    except (HTTPError, OSError) as error:
        raise ThriftbitError(
            f"{model}: the download failed ({_reason(error)}). Run the same command again to continue it"
        ) from None


def _is_refusal(error: Exception) -> bool:
    """Return whether the Hub refused, so that trying again is of no use. A Hub that is down refuses nothing."""
    return isinstance(error, HfHubHTTPError) and error.response.status_code < 500


def _reason(error: Exception) -> str:
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set"
    return str(error).partition("\n")[0].strip() or type(error).__name__


class _NoProgressBar(tqdm):
    """Hides the progress of small files, which arrive before anybody could read a bar."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **{**options, "disable": True})  # type: ignore[no-untyped-call]
