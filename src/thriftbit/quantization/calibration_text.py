"""The calibration text, and the calibration of a model, made once and kept.

Four kinds of text come with the package (`corpora/README.md` says whose they are), so that no language or use is
forgotten. A user's own text replaces them.
"""

from __future__ import annotations

import gzip
import hashlib
import logging
from pathlib import Path

import numpy as np
from gguf import Keys
from numpy.typing import NDArray

from thriftbit.containers.regular_files import read_regular
from thriftbit.errors import ThriftbitError
from thriftbit.folders import cache_folder
from thriftbit.progress import Progress, no_progress
from thriftbit.quantization.calibration_data import INDEX, Calibration, open_calibration
from thriftbit.runtime.tokenizer import Tokenizer
from thriftbit.sizes import counted, describe_seconds
from thriftbit.sources.model import Model

_logger = logging.getLogger(__name__)

CORPORA = Path(__file__).with_name("corpora")
TEXTS = ("prose", "code", "math", "multilingual")
WINDOW_TOKENS = 512
LARGEST_TEXT_BYTES = 1 << 30
WINDOWS = 40  # of all texts together
LEAST_TOKENS = 128  # about half a page: from less, a matrix would be rounded for a few words

VERSION = 5  # of what is kept; another one does not read it


def calibration_of(
    model: Model,
    text: Path | None = None,
    *,
    windows: int = WINDOWS,
    progress: Progress = no_progress,
) -> Calibration:
    """model: in full precision. text: to calibrate on, the texts in the box if None. progress: see `Progress`.

    -> the calibration: from the user's cache, if this model was calibrated on this text before
    Raises ThriftbitError for text that cannot be read or is too short, and if the extra `torch` is not installed.
    """
    cut = calibration_windows(model, text, windows)
    folder = cache_folder() / "calibration" / _identity(model, cut)
    if (folder / INDEX).exists():
        _logger.info(f"Calibrated before: {folder}")
        return open_calibration(folder)
    try:
        from thriftbit.network.threads import choose_threads
        from thriftbit.quantization.calibration import calibrate
        from thriftbit.quantization.estimate import calibration_seconds
    except ModuleNotFoundError as error:
        raise ThriftbitError(f'calibration needs {error.name}; try: pip install "thriftbit[torch]"') from None
    choose_threads()
    _logger.info(
        f"Calibrating on {cut.size:,} tokens, about {describe_seconds(calibration_seconds(model, cut.size))} here"
    )
    return calibrate(model, cut, folder, progress=progress)


def what_calibration_takes(model: Model, text: Path | None, windows: int) -> str:
    """-> "calibrating on 20,480 tokens, about 7 minutes here", or that it was done before; computes nothing long"""
    cut = calibration_windows(model, text, windows)
    if (cache_folder() / "calibration" / _identity(model, cut) / INDEX).exists():
        return f"the calibration of before is used, on {cut.size:,} tokens"
    try:
        from thriftbit.quantization.estimate import calibration_seconds
    except ModuleNotFoundError as error:
        return f'calibrating on {cut.size:,} tokens, which needs {error.name}: pip install "thriftbit[torch]"'
    about = describe_seconds(calibration_seconds(model, cut.size))
    return f"calibrating on {cut.size:,} tokens, about {about} here"


def calibration_windows(model: Model, text: Path | None, windows: int) -> NDArray[np.int64]:
    """Return (windows, WINDOW_TOKENS) token ids, spread evenly over the text, or over the four texts in the box. A
    short text gives fewer windows, and shorter ones rather than none."""
    texts = [_read(text)] if text else [gzip.decompress((CORPORA / f"{n}.txt.gz").read_bytes()).decode() for n in TEXTS]
    with Tokenizer(model.metadata, model.source) as tokenizer:
        tokens = [np.array(ids, np.int64) for ids in tokenizer.tokenize(texts, add_special=False)]
    length = min(WINDOW_TOKENS, *(len(ids) for ids in tokens))
    if length < LEAST_TOKENS:
        raise ThriftbitError(
            f"{text}: is too short to calibrate on: it has {counted(length, 'token')}, and {LEAST_TOKENS} are the "
            "least; a few pages are good, a book is better"
        )
    cut = np.concatenate([_spread(ids, length, max(1, windows // len(tokens))) for ids in tokens])
    first = model.metadata.get(Keys.Tokenizer.BOS_ID)
    if model.metadata.get(Keys.Tokenizer.ADD_BOS) and isinstance(first, np.integer):
        cut[:, 0] = int(first)
    return cut


def _spread(tokens: NDArray[np.int64], length: int, windows: int) -> NDArray[np.int64]:
    whole = len(tokens) // length
    starts = np.unique(np.linspace(0, whole - 1, min(windows, whole)).astype(np.int64)) * length
    return np.stack([tokens[start : start + length] for start in starts])


def _read(path: Path) -> str:
    try:
        return read_regular(path, LARGEST_TEXT_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ThriftbitError(f"{path}: is not UTF-8 at byte {error.start}; save it as UTF-8") from None


def _identity(model: Model, windows: NDArray[np.int64]) -> str:
    """Return what the calibration depends on: weights, text, and the version of the stored form."""
    digest = hashlib.sha256(f"{VERSION} {model.identity} {windows.shape}".encode())
    digest.update(windows.astype("<i8").tobytes())
    return digest.hexdigest()[:32]
