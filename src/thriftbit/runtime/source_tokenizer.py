"""The tokenizer that a model folder came with, run by the library that it was made for, in a process of its own.

transformers builds it if it is installed, as it does for everybody who runs the original. The `tokenizers` library
reads tokenizer.json where transformers is missing, and where transformers would take that file as it stands: it starts
in a fraction of the time. The folder is a stranger's, so the process has limits of time and memory (`confined.py`), no
network, and runs no code of the folder.

Standard input of that process: JSON with `folder` and `texts`. Standard output: an object with `program`, `ids` (of
each text, without tokens around it) and `begun` (of the first text, with the tokens that the tokenizer puts around it).
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thriftbit.runtime.confined import run_confined

_PATIENCE_SECONDS = 120
_MEMORY_BYTES = 4 << 30
_OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "critical", "TOKENIZERS_PARALLELISM": "false"}

# For these, transformers 5 takes tokenizer.json as it stands
_GENERIC_CLASSES = ("", "PreTrainedTokenizer", "TokenizersBackend")
_GENERIC_MODEL_TYPES = ("llama", "mistral", "mixtral", "phi3")


@dataclass(frozen=True)
class SourceIds:
    """program: what read the texts. ids: of each text. begun: of the first text, with the tokens around it."""

    program: str
    ids: list[list[int]]
    begun: list[int]


def source_ids(folder: Path, texts: Sequence[str]) -> SourceIds | None:
    """Return the ids of the texts by the folder's own tokenizer; None where
    neither library is installed or can read it."""
    if not any(importlib.util.find_spec(name) for name in ("transformers", "tokenizers")):
        return None
    answer = run_confined(
        __name__,
        json.dumps({"folder": str(folder), "texts": list(texts)}).encode(),
        patience_seconds=_PATIENCE_SECONDS,
        memory_bytes=_MEMORY_BYTES,
        environment=_OFFLINE,
    )
    try:
        return SourceIds(**json.loads(answer or b""))
    except (ValueError, TypeError):
        return None


def _answer(folder: Path, texts: list[str]) -> dict[str, Any]:
    if importlib.util.find_spec("transformers") and not (
        importlib.util.find_spec("tokenizers") and _is_taken_as_it_stands(folder)
    ):
        try:
            return _by_transformers(folder, texts)
        except Exception:  # whatever a stranger's files do to a library: the other one is asked
            pass
    return _by_tokenizers(folder, texts)


def _is_taken_as_it_stands(folder: Path) -> bool:
    settings: dict[str, Any] = {}
    for name in ("tokenizer_config.json", "config.json"):
        if (folder / name).exists():
            settings |= json.loads((folder / name).read_text(encoding="utf-8"))
    named = str(settings.get("tokenizer_class") or "").removesuffix("Fast")
    return (
        (folder / "tokenizer.json").exists()
        and not settings.get("added_tokens_decoder")  # which transformers merges into the file
        and named in _GENERIC_CLASSES
        and str(settings.get("model_type")) in _GENERIC_MODEL_TYPES
    )


def _by_transformers(folder: Path, texts: list[str]) -> dict[str, Any]:
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    return {"program": "transformers", "ids": ids, "begun": tokenizer(texts[0])["input_ids"]}


def _by_tokenizers(folder: Path, texts: list[str]) -> dict[str, Any]:
    library: Any = importlib.import_module("tokenizers")  # comes with transformers, and is used wherever it is
    tokenizer = library.Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    ids = [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
    return {"program": "tokenizers", "ids": ids, "begun": tokenizer.encode(texts[0]).ids}


def main() -> None:
    question = json.loads(sys.stdin.buffer.read())
    # both libraries print; the answer keeps the standard output to itself
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    with answers:
        answers.write(json.dumps(_answer(Path(question["folder"]), question["texts"])))


if __name__ == "__main__":
    main()
