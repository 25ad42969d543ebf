"""Packed weights, read as the weights that they stand for.

A checkpoint may store its weights as small numbers with scales, in one of a dozen ways. Each way is a file here, mostly
a table. It gives a `Tensor` that unpacks rows as they are read. The tensor has the name and the shape of the weight in
the unpacked model, so no other room needs to know that it was packed.

The stored tensors decide: a module whose weight is plain stays as it is, whatever the configuration lists. The
configuration tells what tensors do not: bits, groups, blocks (`settings.py`)."""

from thriftbit.sources.packed.settings import METHODS, Packing, find_packing, without_packing
from thriftbit.sources.packed.unpacking import refuse_unread, unpacked

__all__ = ["METHODS", "Packing", "find_packing", "refuse_unread", "unpacked", "without_packing"]
