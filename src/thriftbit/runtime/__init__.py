"""Running a model."""

from thriftbit.runtime.engine import Engine
from thriftbit.runtime.generation import EngineMemory, Generation
from thriftbit.runtime.tokenizer import Tokenizer

__all__ = ["Engine", "EngineMemory", "Generation", "Tokenizer"]
