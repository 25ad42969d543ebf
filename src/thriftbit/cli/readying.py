"""From what a person calls a model to a file that runs, for the commands that run one."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

import thriftbit
from thriftbit.cli.printing import announce
from thriftbit.cli.progress import ProgressLine
from thriftbit.errors import ThriftbitError

if TYPE_CHECKING:
    from thriftbit.advice.ready import Ready


def make_ready(model: str, *, context_tokens: int | None, offline: bool, yes: bool) -> Ready:
    """yes: whether what is downloaded and written was agreed to beforehand"""
    with ProgressLine() as line:
        return thriftbit.ready_to_run(
            model,
            context_tokens=context_tokens,
            offline=offline,
            confirm=lambda words: yes or _confirmed(words),
            announce=announce,
            progress=line.update,
        )


def _confirmed(words: str) -> bool:
    if not sys.stdin.isatty():
        raise ThriftbitError("nothing was downloaded or written, as nobody can be asked here; --yes agrees beforehand")
    return click.confirm(words, err=True)
