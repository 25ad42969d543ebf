"""What is really in a model: a GGUF file, split or not, or a folder from Hugging Face.

Names such as "Q4_K_M" say little. The headers say which tensors have which formats, how many bits a weight takes, and
whether the file can tokenize and chat. Only the headers are read, so nothing here says whether the weights are any
good, or even finite."""

from thriftbit.inspection.description import InspectedTensor
from thriftbit.inspection.inspection import Inspection, TokenizerFacts, TypeTotal, inspect

__all__ = ["InspectedTensor", "Inspection", "TokenizerFacts", "TypeTotal", "inspect"]
