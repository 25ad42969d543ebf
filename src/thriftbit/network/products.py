"""Products of bfloat16 where float32's digits mean nothing and the device multiplies bfloat16 faster.

Calibrating and tuning sum over thousands of tokens. Products in bfloat16 add random errors that are far smaller than
the differences between texts. Where two models are compared, products stay in float32, because the result is a small
difference."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import cache

import torch

from thriftbit.machine.detect import detect

_FASTER_WITH = frozenset({"AVX-512 BF16", "AMX"})  # torch has kernels for these; on other processors it would convert


def short_products(device: torch.device) -> AbstractContextManager[object]:
    """In this context, a network's products on the device are of bfloat16, and everything else of float32. If that
    would not be faster, nothing changes."""
    return torch.autocast(device.type, torch.bfloat16, enabled=are_short(device))


def are_short(device: torch.device) -> bool:
    """Return whether `short_products` are of bfloat16 on the device."""
    return device.type != "cpu" or _processor_has_them()


@cache
def _processor_has_them() -> bool:
    return not _FASTER_WITH.isdisjoint(detect().processor.instruction_sets.value or ())
