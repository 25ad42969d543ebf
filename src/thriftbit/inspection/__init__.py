"""What is really in a model: a GGUF file, split or not, or a folder from Hugging Face.

Names such as "Q4_K_M" say little: which tensors got which bits, what the file costs per weight, whether it can tokenize
and chat, is in the headers, and only they are read. The weights are not, so nothing here says whether they are any good
or even finite.
"""

from thriftbit.inspection.description import InspectedTensor
from thriftbit.inspection.inspection import Inspection, TokenizerFacts, TypeTotal, inspect

__all__ = ["InspectedTensor", "Inspection", "TokenizerFacts", "TypeTotal", "inspect"]
