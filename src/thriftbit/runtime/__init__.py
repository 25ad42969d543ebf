"""Running a model."""

from thriftbit.runtime.engine import Engine
from thriftbit.runtime.generation import Generation, Memory
from thriftbit.runtime.tokenizer import Tokenizer

__all__ = ["Engine", "Generation", "Memory", "Tokenizer"]
