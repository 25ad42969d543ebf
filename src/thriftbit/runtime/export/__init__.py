"""Handing a model to other programs: one file for each of them, and what they share."""

from thriftbit.runtime.export.exporting import PROGRAMS, Export, export

__all__ = ["PROGRAMS", "Export", "export"]
