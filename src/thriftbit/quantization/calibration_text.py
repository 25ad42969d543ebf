"""The calibration text, and the calibration of a model, made once and kept.

Four kinds of text come with the package (`corpora/README.md` says whose they are), so that no language or use is
forgotten. A user's own text replaces them.
"""

from __future__ import annotations

import gzip
import logging
from pathlib import Path

import numpy as np
from gguf import Keys
from numpy.typing import NDArray

from thriftbit.containers.regular_files import read_regular
from thriftbit.errors import ThriftbitError
from thriftbit.library.artefacts import used
from thriftbit.progress import Progress, no_progress
from thriftbit.quantization.calibration_data import (
    FEWEST_WINDOWS,
    INDEX,
    Calibration,
    held_back,
    what_it_is_made_of,
)
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

FEWEST_LENGTH = 32  # tokens of a window: shorter ones say little about attention


def calibrate(
    model: Model,
    text: Path | None = None,
    *,
    windows: int = WINDOWS,
    workers: int | None = None,
    memory_bytes: int | None = None,
    cache_limit_bytes: int | None = None,
    progress: Progress = no_progress,
) -> Calibration:
    """model: in full precision. text: to calibrate on, the texts in the box if None. windows: of the text, at most.
    workers: processes that compute at once, as many as there are cores if None; the result is the same for any number.
    memory_bytes: what they may take together, what is free less a reserve if None. cache_limit_bytes: what all that is
    kept of models may take, twice the largest model if None. progress: see `Progress`.

    Returns the calibration: from the user's cache, if this model was calibrated on this text before. A run that was
    interrupted is gone on with.
    Raises ThriftbitError for text that cannot be read or is too short, for want of memory or disk, and if the extra
    `torch` is not installed."""
    cut = calibration_windows(model, text, windows)
    say_if_too_short(cut)
    try:
        from thriftbit.quantization.calibration import calibrate_windows
        from thriftbit.quantization.estimate import calibration_seconds, worthwhile_workers
    except ModuleNotFoundError as error:
        raise ThriftbitError(f'calibration needs {error.name}; try: pip install "thriftbit[torch]"') from None
    made = what_it_is_made_of(model, cut)
    if (made.folder / INDEX).exists():
        _logger.info(f"Calibrated before: {made.folder}")
    else:
        workers = worthwhile_workers(model, cut.size) if workers is None else workers
        about = describe_seconds(calibration_seconds(model, cut.size, workers))
        _logger.info(f"Calibrating on {cut.size:,} tokens, about {about} here")
    calibration = calibrate_windows(
        model,
        cut,
        made.folder,
        workers=workers or 1,
        memory_bytes=memory_bytes,
        cache_limit_bytes=cache_limit_bytes,
        progress=progress,
    )
    used(made.folder)
    if calibration.left_out:
        most = max(calibration.left_out.values())
        _logger.warning(
            f"{model.source}: in {len(calibration.left_out)} matrices, up to {most:,} of {calibration.tokens:,} tokens "
            "gave values that are not finite, and were left out there"
        )
    return calibration


def say_if_too_short(windows: NDArray[np.int64]) -> None:
    """Say so if none of the text can be held back to check roundings on."""
    if not held_back(len(windows)).any():
        _logger.warning(
            f"The calibration text is {len(windows)} windows of {windows.shape[1]} tokens, too few to check a rounding "
            f"on: matrices are encoded block by block, by importance. With {FEWEST_WINDOWS} windows or more, they are "
            "rounded as a whole"
        )


def what_calibration_takes(model: Model, text: Path | None, windows: int) -> str:
    """Return "calibrating on 20,480 tokens, about 7 minutes here", or
    that it was done before; computes nothing long."""
    cut = calibration_windows(model, text, windows)
    try:
        from thriftbit.quantization.estimate import calibration_seconds, worthwhile_workers
    except ModuleNotFoundError as error:
        return f'calibrating on {cut.size:,} tokens, which needs {error.name}: pip install "thriftbit[torch]"'
    if (what_it_is_made_of(model, cut).folder / INDEX).exists():
        return f"the calibration of before is used, on {cut.size:,} tokens"
    about = describe_seconds(calibration_seconds(model, cut.size, worthwhile_workers(model, cut.size)))
    return f"calibrating on {cut.size:,} tokens, about {about} here"


def calibration_windows(model: Model, text: Path | None, windows: int) -> NDArray[np.int64]:
    """Return (windows, WINDOW_TOKENS) token ids, spread evenly over the text, or over the four texts in the box. A
    short text gives fewer windows, and shorter ones rather than none, or none that can be held back."""
    texts = [_read(text)] if text else [gzip.decompress((CORPORA / f"{n}.txt.gz").read_bytes()).decode() for n in TEXTS]
    with Tokenizer(model.metadata, model.source) as tokenizer:
        tokens = [np.array(ids, np.int64) for ids in tokenizer.tokenize(texts, add_special=False)]
    length = min(WINDOW_TOKENS, *(len(ids) for ids in tokens))
    if length < LEAST_TOKENS:
        raise ThriftbitError(
            f"{text}: is too short to calibrate on: it has {counted(length, 'token')}, and {LEAST_TOKENS} are the "
            "least; a few pages are good, a book is better"
        )
    # a short text is cut into shorter windows, so that some can be held back
    length = min(length, max(FEWEST_LENGTH, sum(len(ids) for ids in tokens) // FEWEST_WINDOWS))
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
