"""`thriftbit pull`: a model from the Hub onto this disk, into the Hub's own cache."""

from __future__ import annotations

from pathlib import Path

from thriftbit.errors import UsageError, shown
from thriftbit.library.locate import locate, obtain
from thriftbit.sources.hub import download_checkpoint, parse_hub_id


def pull(name: str) -> Path:
    """Download a model, and return the file or the folder of safetensors.

    name: "OWNER/NAME", "OWNER/NAME:LEVEL" or "OWNER/NAME:FILE". The size is logged before the download begins. An
    interrupted download continues where it stopped. Raises UsageError for anything but such a name, ThriftbitError for
    a repository that is absent or gated, a full disk, and a Hub that cannot be reached."""
    located = locate(name, to_run=True)
    hub_id = parse_hub_id(located.source)
    if located.is_remote or (path := Path(located.source)).exists():
        return Path(obtain(name, to_run=True)) if located.is_remote else path
    if hub_id is None:
        raise UsageError(f"{shown(name)} is not a name on the Hub; `thriftbit find WORDS` searches for some")
    return download_checkpoint(hub_id)
