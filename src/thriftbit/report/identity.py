"""When two rows are about the same file: it has the same weights and the same size.

The fingerprint alone will not do. It is of the weights' values, and a file in 16 bits that loses nothing has those of
the model it was made from, whose speed and size are others.
"""

from __future__ import annotations

from thriftbit.measurement.measurement import Subject

Identity = tuple[str, float]


def identity(subject: Subject) -> Identity:
    return subject.fingerprint, subject.size_bytes
