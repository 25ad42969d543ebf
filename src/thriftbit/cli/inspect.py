"""`thriftbit inspect`: what is really in a GGUF file or a model folder."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

import thriftbit
from thriftbit.cli.completion import complete_models
from thriftbit.cli.options import json_option
from thriftbit.cli.printing import notes, print_json, say, say_cropped, show, table
from thriftbit.cli.waiting import Waiting
from thriftbit.sizes import describe_bytes, describe_count

if TYPE_CHECKING:
    from thriftbit.inspection import Inspection

LONG_VALUE = 200  # characters of metadata, of which a terminal's width is shown; a chat template alone fills pages


@click.command(short_help="Show what is really in a GGUF file or a model folder.")
@click.argument("path", metavar="FILE|FOLDER", shell_complete=complete_models)
@click.option("--tensors", "with_tensors", is_flag=True, help="List every tensor.")
@json_option
def inspect(path: str, with_tensors: bool, as_json: bool) -> None:
    """Show what is really in a GGUF file, or in a model folder in Hugging Face's layout.

    You see the architecture, parameters, types and sizes, the true bits per weight, metadata, and whatever is odd. Only
    headers are read, so this is quick however large the model is. --json prints everything, tensors included.

    \b
    Examples:
      thriftbit inspect Qwen2.5-1.5B-Instruct-Q4_K_M.gguf
      thriftbit inspect ./Qwen2.5-1.5B-Instruct --tensors
      thriftbit inspect model-00001-of-00003.gguf --json
    """
    with Waiting(notes, lambda: f"reading {path}"):
        inspection = thriftbit.inspect(path)
    if as_json:
        print_json(inspection.to_dict())
        return
    say(inspection.name or inspection.path, style="bold")
    for line in _facts(inspection):
        say(f"  {line}")
    say("")
    headings = ("type", ">tensors", ">weights", ">bits each", ">size")
    rows = [
        (
            t.type,
            str(t.tensors),
            describe_count(t.parameters),
            _bits(t.size_bytes, t.parameters),
            describe_bytes(t.size_bytes),
        )
        for t in inspection.types
    ]
    show(table(headings, rows))
    say("")
    say("metadata", style="bold")
    key_width = max(map(len, inspection.metadata), default=0)
    for key, value in inspection.metadata.items():
        say_cropped(f"  {key:<{key_width}}  {_one_line(value)}".rstrip())
    if with_tensors:
        say("")
        _show_tensors(inspection)
    if inspection.oddities:
        say("\nWorth a second look:", style="bold")
        for sentence in inspection.oddities:
            say(f"  - {sentence}")


def _facts(inspection: Inspection) -> Iterator[str]:
    what = [inspection.kind, inspection.architecture or "unknown architecture", inspection.file_type]
    parts = f"in {len(inspection.files)} files" if len(inspection.files) > 1 else None
    yield ", ".join(fact for fact in (*what, parts) if fact)
    bits = f", {inspection.bits_per_weight:.2f} bits per weight" if inspection.bits_per_weight else ""
    yield f"{describe_count(inspection.parameters)} parameters in {describe_bytes(inspection.file_size_bytes)}{bits}"
    if inspection.context_length:
        yield f"context of {inspection.context_length:,} tokens"
    if tokenizer := inspection.tokenizer:
        template = "with" if tokenizer.chat_template else "without"
        names = " ".join(name for name in (tokenizer.model, tokenizer.pre) if name)
        yield f"tokenizer {names}, {tokenizer.vocabulary_size:,} tokens, {template} a chat template"


def _show_tensors(inspection: Inspection) -> None:
    headings = ("tensor", "type", ">shape", ">size")
    rows = [
        (tensor.name, tensor.type, " × ".join(map(str, tensor.shape)), describe_bytes(tensor.size_bytes))
        for tensor in inspection.tensors
    ]
    show(table(headings, rows))


def _bits(size_bytes: int, parameters: int) -> str:
    return f"{8 * size_bytes / parameters:.2f}" if parameters else ""


def _one_line(value: Any) -> str:
    """Return a metadata value; a summarised array as its length and first values."""
    if isinstance(value, dict):
        return f"{value['length']:,} × {value['array_of']}: {_one_line(value['first'])}, …"
    if isinstance(value, list):
        return ", ".join(map(_one_line, value))
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text[:LONG_VALUE].replace("\n", "⏎")
