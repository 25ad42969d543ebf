"""When two rows are about the same file: both the weights and the size are the same.

The fingerprint alone is not enough. It identifies the values of the weights, and a lossless file in 16 bits has the
same values as the model it was made from, but another size and speed.
"""

from __future__ import annotations

from thriftbit.measurement.measurement import Subject

Identity = tuple[str, float]


def identity(subject: Subject) -> Identity:
    return subject.fingerprint, subject.size_bytes
