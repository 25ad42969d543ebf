"""Running a model."""

from thriftbit.runtime.engine import Engine, Generation

__all__ = ["Engine", "Generation"]
