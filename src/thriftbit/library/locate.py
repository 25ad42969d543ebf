"""Turns a person's name for a model into something that can be opened. Every command asks here.

A name may be, in this order: a path; an alias of the user's; a name that `thriftbit find` prints, Ollama's included; a
repository on the Hub, "owner/name", where ":Q4_K_M" or ":file.gguf" chooses one of its GGUF files, as in Ollama and
llama.cpp; a part of a name that only one model here has. Models on this disk come before the Hub, so that everything
here works without a network.

A repository may hold safetensors, GGUF files or both. Running a model prefers GGUF files; quantizing prefers
safetensors. If there are several GGUF files and none was named, Q4_K_M is taken, or the largest smaller one that fits
into memory, and the user is told."""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import constants

from thriftbit.errors import ThriftbitError, UsageError, enumeration, shown
from thriftbit.library.aliases import read_aliases
from thriftbit.library.candidate import Candidate, whole_files
from thriftbit.library.choose import choose_file
from thriftbit.library.disk_search import candidates, from_here
from thriftbit.library.inventory import matches
from thriftbit.sizes import describe_bytes
from thriftbit.sources.checkpoint import CONFIG
from thriftbit.sources.hub import HubId, download_files, file_sizes, parse_hub_id
from thriftbit.strangers import quoted

_logger = logging.getLogger(__name__)

LITTLE_BYTES = 100_000_000  # downloaded or written without a question
_HUB_PREFIX = re.compile(r"(?:https?://)?(?:huggingface\.co|hf\.co)/|hf://(?:models/)?")
_HUB_NAME = re.compile(
    r"(?P<repository>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@(?P<revision>\w[\w./-]*?))?"
    r"(?::(?P<choice>[\w./ -]+)|/(?:(?:blob|resolve)/(?P<branch>[\w.-]+)/)?(?P<file>[\w./ -]+\.gguf))?",
    re.ASCII | re.IGNORECASE,
)
_OLLAMA_NAME = re.compile(r"[\w.-]+:[\w.-]+", re.ASCII)
_LISTED = 8

Confirm = Callable[[str], bool]


@dataclass(frozen=True)
class Located:
    """source: what `open_outline` takes: a path, a hub id of safetensors, or "owner/name/file.gguf" of a file that is
    only on the Hub. repository, files, size_bytes: of a file that has to be downloaded before its weights can be
    read."""

    source: str
    repository: HubId | None = None
    files: tuple[str, ...] = ()
    size_bytes: int = 0

    @property
    def is_remote(self) -> bool:
        return self.repository is not None


def locate(name: str | Path, *, to_run: bool = False, offline: bool = False) -> Located:
    """Return what the name stands for. Nothing large is downloaded.

    to_run: prefer a repository's GGUF files to its safetensors. offline: ask no server.
    Raises ThriftbitError, with the nearest names, for a name that no model has; UsageError for a name that several
    have."""
    text = str(name)
    if not text.strip():
        raise UsageError("no model is named; `thriftbit ls` lists the models on this disk")
    path = Path(text).expanduser()
    if _exists(path):
        return Located(_in_folder_of_ggufs(path, "") if path.is_dir() else str(path))
    if text.startswith(("http://", "https://")) and _hub_name(text) is None:
        return Located(text)
    if (target := read_aliases().get(text)) is not None:
        if _exists(Path(target)) or _hub_name(target):
            return locate(target, to_run=to_run, offline=offline)
        raise UsageError(f"the alias {shown(text)} stands for {target}, which is gone. thriftbit alias rm {text}")
    here = candidates(Path.cwd(), _logger.debug)
    if (found := _named(text, here)) is not None:
        return Located(from_here(found.path))
    folder, _, choice = text.rpartition(":")
    if folder and choice and Path(folder).expanduser().is_dir():
        return Located(_in_folder_of_ggufs(Path(folder).expanduser(), choice))
    if (hub_name := _hub_name(text)) is not None:
        return _of_repository(*hub_name, here, to_run, offline or constants.HF_HUB_OFFLINE)
    if not _looks_like_path(text) and (found := _only_match(text, here)) is not None:
        source = from_here(found.path)
        if source.lower() != f"{text}.gguf".lower():
            _logger.info(f"{text} is taken for {found.name} ({found.place}).")
        return Located(source)
    raise ThriftbitError(_missed(text, here))


def obtain(
    name: str | Path,
    *,
    to_run: bool = False,
    offline: bool = False,
    confirm: Confirm = lambda words: True,
) -> str:
    """Return a source whose weights can be read: a path, or the hub id of safetensors. A GGUF that is only on the Hub
    is downloaded into the Hub's own cache.

    confirm: is asked before more than LITTLE_BYTES are downloaded; a no raises ThriftbitError."""
    located = locate(name, to_run=to_run, offline=offline)
    if located.repository is None:
        return located.source
    size = describe_bytes(located.size_bytes)
    if located.size_bytes > LITTLE_BYTES:
        _logger.info(f"{located.source} is on the Hub; the download is {size}.")
        if not confirm("Download it?"):
            raise ThriftbitError("nothing was downloaded")
    folder = download_files(located.repository, located.files)
    return str(folder / located.files[0])


def _exists(path: Path) -> bool:
    try:
        return path.exists() or path.is_symlink()
    except (OSError, ValueError):  # the name is too long, or has a zero byte
        return False


def _in_folder_of_ggufs(folder: Path, choice: str) -> str:
    """Return the folder itself, or one of its GGUF files if it holds no checkpoint."""
    try:
        names = [entry.name for entry in folder.iterdir() if entry.is_file()]
    except OSError:
        return str(folder)
    files = whole_files(names)
    if (CONFIG in names and not choice) or not files:
        return str(folder)
    sizes = {parts[0]: sum((folder / part).stat().st_size for part in parts) for parts in files}
    return str(folder / choose_file(str(folder), sizes, choice))


def _hub_name(text: str) -> tuple[HubId, str] | None:
    """Return the repository and the choice of a file in it; None for a text that is no name on the Hub."""
    match = _HUB_NAME.fullmatch(_HUB_PREFIX.sub("", text, count=1))
    if match is None:
        return None
    hub_id = parse_hub_id(match["repository"] + (f"@{match['revision']}" if match["revision"] else ""))
    return (hub_id, match["choice"] or match["file"] or "") if hub_id else None


def _named(text: str, here: Sequence[Candidate]) -> Candidate | None:
    """Return the model with exactly this name or alias; Ollama's ":latest" may be left out."""
    for wanted in (text, f"{text}:latest"):
        for same in (str.__eq__, lambda one, other: one.lower() == other.lower()):
            for candidate in here:
                # a folder of the Hub's cache is opened by its repository's name, which may have a newer revision
                is_repository = candidate.folder is not None and parse_hub_id(wanted) is not None
                if not is_repository and any(same(name, wanted) for name in (candidate.name, *candidate.aliases)):
                    return candidate
    return None


def _of_repository(hub_id: HubId, choice: str, here: Sequence[Candidate], to_run: bool, offline: bool) -> Located:
    prefix = f"{hub_id.repository}/".lower()
    files = {
        name[len(prefix) :]: candidate
        for candidate in here
        for name in (candidate.name, *candidate.aliases)
        if name.lower().startswith(prefix) and candidate.folder is None
    }
    has_checkpoint = any(candidate.name.lower() == prefix[:-1] for candidate in here if candidate.folder)
    if files and (choice or to_run or not has_checkpoint):
        sizes = {name: _size_bytes(candidate) for name, candidate in files.items()}
        try:
            chosen = choose_file(hub_id.repository, sizes, choice)
            return Located(str(files[chosen].path))
        except UsageError:  # the Hub may have more
            if offline:
                raise
    if offline or (has_checkpoint and not choice and not to_run):
        if choice and not files:
            raise UsageError(_not_here(hub_id, choice))
        return Located(str(hub_id))  # opening it uses the cache, or tells why it cannot
    return _on_hub(hub_id, choice, to_run)


def _on_hub(hub_id: HubId, choice: str, to_run: bool) -> Located:
    sizes = file_sizes(hub_id)
    if sizes is None:  # the Hub was not reached; opening it uses the cache, or tells why it cannot
        return Located(str(hub_id))
    whole = {parts[0]: parts for parts in whole_files(sizes)}
    has_checkpoint = CONFIG in sizes and any(name.endswith(".safetensors") for name in sizes)
    if choice and not whole:
        raise UsageError(f"{hub_id} has no GGUF files, so {shown(choice)} cannot be chosen; {hub_id} alone names it")
    if not whole or (has_checkpoint and not choice and not to_run):
        return Located(str(hub_id))
    totals = {first: sum(sizes[part] for part in parts) for first, parts in whole.items()}
    chosen = choose_file(str(hub_id), totals, choice)
    return Located(f"{hub_id.repository}/{chosen}", hub_id, tuple(whole[chosen]), totals[chosen])


def _size_bytes(candidate: Candidate) -> int:
    try:
        return sum(file.stat().st_size for file in candidate.files)
    except OSError:
        return 0


def _only_match(text: str, here: Sequence[Candidate]) -> Candidate | None:
    """Return the one model whose name contains the words; None if there is none. Raises UsageError if there are
    several."""
    words = re.split(r"[\s:]+", text.strip())
    if not any(words):
        return None
    by_stem = [candidate for candidate in here if text.lower() in map(_stem, (candidate.name, *candidate.aliases))]
    found = by_stem or [c for c in here if any(matches(words, name) for name in (c.name, *c.aliases))]
    same_bytes = {candidate.sha256 or str(candidate.path) for candidate in found}
    if len(same_bytes) > 1:
        listed = "".join(f"\n  {candidate.name}" for candidate in found[:_LISTED])
        more = f"\n  and {len(found) - _LISTED} more" if len(found) > _LISTED else ""
        raise UsageError(f"{len(found)} models here are called {shown(text)}; type more of the name:{listed}{more}")
    return found[0] if found else None


def _stem(name: str) -> str:
    """Return the last part of a name without its suffix, in lower case."""
    return name.rpartition("/")[2].lower().removesuffix(".gguf")


def _looks_like_path(text: str) -> bool:
    return text.startswith(("./", "../", "/", "~", ".\\", "..\\")) or bool(re.match(r"[A-Za-z]:\\", text))


def _missed(text: str, here: Sequence[Candidate]) -> str:
    near = nearest(text, here)
    is_file = _looks_like_path(text) or text.lower().endswith((".gguf", ".safetensors"))
    problem = f"{text}: no such file" if is_file else f"no model here is called {shown(text)}"
    if near:
        return f"{problem}. Similar names here: {enumeration(near)}"
    if _OLLAMA_NAME.fullmatch(text):
        words = text.replace(":", " ")
        return (
            f"{problem}. If it is a name of Ollama's library, `ollama pull {quoted(text)}` fetches it, and then "
            f"Thriftbit finds it; `thriftbit find {quoted(words)}` searches the Hugging Face Hub"
        )
    if not here:
        return (
            f"{problem}, and no model is on this disk. `thriftbit find WORDS` searches the Hugging Face Hub, "
            "`thriftbit pull OWNER/NAME` downloads from it, and `thriftbit demo` needs no network"
        )
    return f"{problem}. `thriftbit ls` lists the models here; on the Hub a model is called OWNER/NAME"


def nearest(text: str, here: Iterable[Candidate]) -> list[str]:
    """Return up to three names of models here that resemble the text."""
    names = {name: candidate.name for candidate in here for name in (candidate.name, *candidate.aliases)}
    names = {_stem(name): whole for name, whole in names.items()} | {name.lower(): w for name, w in names.items()}
    names |= {alias.lower(): alias for alias in read_aliases()}
    close = difflib.get_close_matches(text.lower()[:200], names, n=6, cutoff=0.6)
    close += difflib.get_close_matches(_stem(text)[:200], names, n=6, cutoff=0.6)
    return list(dict.fromkeys(names[each] for each in close))[:3]


def _not_here(hub_id: HubId, choice: str) -> str:
    return f"{hub_id}:{choice} is not on this disk and may not be fetched offline: run once without --offline"
