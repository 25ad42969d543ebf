"""Weights that come packed, given back as the weights they stand for.

A checkpoint may store its weights as small numbers with scales, in one of a dozen ways. Each way is a file here, mostly
a table, and gives a `Tensor` that unpacks rows as they are read: with the name and the shape that the weight has in the
unpacked model, so that nothing behind this room knows that it was packed.

What is stored decides: a module whose weight is plain stays as it is, whatever lists of modules the configuration has.
The configuration says what the tensors cannot: bits, groups, blocks (`settings.py`).
"""

from thriftbit.sources.packed.settings import METHODS, Packing, find_packing, without_packing
from thriftbit.sources.packed.unpacking import refuse_unread, unpacked

__all__ = ["METHODS", "Packing", "find_packing", "refuse_unread", "unpacked", "without_packing"]
