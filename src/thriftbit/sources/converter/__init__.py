"""Models of families without a table here, converted by llama.cpp's own converter.

The problem: llama.cpp's converter knows some 270 classes and is kept by the people who write llama.cpp; our tables know
a few dozen. The choice: where there is no table, the converter describes the model and computes its tensors, in a
process of its own, and everything after that is ours. The tokenizer and the general keys come from our own reading of
the folder, since the converter refuses tokenizers that it has not seen before.
"""

from thriftbit.sources.converter.converted import ConverterOptions, converted_model

__all__ = ["ConverterOptions", "converted_model"]
