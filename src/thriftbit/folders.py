"""Where on this machine things are kept between runs."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def cache_folder() -> Path:
    """Return the user's cache for thriftbit; THRIFTBIT_CACHE moves it."""
    return Path(os.environ.get("THRIFTBIT_CACHE") or platformdirs.user_cache_dir("thriftbit", appauthor=False))


def data_folder() -> Path:
    """Return where the user's own is, which nothing can make again; THRIFTBIT_DATA moves it."""
    return Path(os.environ.get("THRIFTBIT_DATA") or platformdirs.user_data_dir("thriftbit", appauthor=False))
