"""The error of everything that detection tries to read and cannot."""

from __future__ import annotations


class UnreadableError(Exception):
    """The message is the reason, for people."""
