"""Which classes go in, and how well that is proven: writes docs/models.md.

    python benchmarks/families.py [CLASS ...] [--write]

For every class with a table here, all of its tiny random models (tests/conformance/tiny_models.py) are tried: whether
they go in; llama.cpp's logits against transformers'; keys, values and llama-quantize's types against those recorded of
llama.cpp's converter; the way back, from a GGUF to transformers' network; and whether the configuration alone gives the
tensors of the file, so that `fit` knows its size to the byte. Prints a row for each class and one JSON line last.
Two classes without a table show the way through llama.cpp's converter; it is looked for as `quantize` does.
--write: into docs/models.md. Of classes that were not tried this time the rows stay as they are.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
import transformers

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.conformance.converted_models import WIDE_MODELS  # noqa: E402
from tests.conformance.test_architectures import llama_cpp_logits, to_gguf, write_f32  # noqa: E402
from tests.conformance.test_converted import (  # noqa: E402
    RECORDED,
    check_configuration_alone,
    test_keys_tensors_and_types_are_those_of_llama_cpp,
)
from tests.conformance.test_matched import converted  # noqa: E402
from tests.conformance.test_network import layer_by_layer, open_tiny  # noqa: E402
from tests.conformance.tiny_converted import BY_CONVERTER  # noqa: E402
from tests.conformance.tiny_models import (  # noqa: E402
    TINY_MODELS,
    VOCABULARY,
    TinyModel,
    reference_logits,
    save,
    tokens,
)

from thriftbit.sources.architectures import find_architecture, known_architectures  # noqa: E402
from thriftbit.sources.checkpoint import open_checkpoint  # noqa: E402

PAGE = ROOT / "docs" / "models.md"
HEAD = """# Models

Written by `python benchmarks/families.py --write`; not to be edited by hand.

Every class of the first table has a table here (`src/thriftbit/sources/architectures/families/`). Any other class that
llama.cpp's own converter knows goes through that: `thriftbit quantize` offers it.

- **logits**: the largest difference of any logit between llama.cpp and transformers, in standard deviations of the
  logits, over tiny random models of the class. GELU is looked up in half precision by llama.cpp: up to 0.002 is that.
- **types**: keys, values, shapes and the types of Q8_0, Q4_K_M and Q2_K are those of llama.cpp's converter and
  llama-quantize.
- **way back**: from a GGUF alone to transformers' network, so `measure`, `map`, `calibrated` and `tuned` work: the
  largest difference of any logit.
- **fit**: the configuration alone gives every tensor of the file, so its size is known to the byte.

"""
COLUMNS = """| class | GGUF | goes in | logits | types | way back | fit |
| --- | --- | --- | ---: | --- | ---: | --- |
"""
WITHOUT_TABLE = """
## Without a table

By llama.cpp's converter: keys, names and values are its own, the way back is by content, from the folder of the
original; `fit` tells sizes from the headers of the weights. A file gets its name only if llama.cpp's next tokens are
transformers'. Two such classes, tried on a tiny model each:

"""
REASONS = """
Why other models that people run have no table here:

- MuseGlimmerForConditionalGeneration: by the converter. On a tiny model llama.cpp's logits are transformers', and the
  way back gives the same logits.
- GlmMoeDsaForCausalLM (GLM-5): by the converter. On a tiny model logits agree as long as a text has no more tokens than
  `index_topk` chooses (2,048 in the published models); with a choice they were 0.3 of their spread apart. Its layers
  give each other the tokens that were chosen, so there is no way back.
- LagunaForCausalLM: goes through the converter and has a way back, but on a tiny model llama.cpp's logits are not
  transformers', so the file is refused. Why is not known yet.
- Qwen4ExpForConditionalGeneration: the converter describes one table in a way of its own, which is not read here yet.
- Glm5NextForConditionalGeneration, KimiLinearForCausalLM, MiniMaxM3SparseForConditionalGeneration,
  DeepseekV4ForCausalLM: the converter asks for settings or names of the first published folder, which transformers 5
  writes otherwise. Folders as their authors published them were not tried.
- Gemma4UnifiedForConditionalGeneration: the converter refused a tiny model for a missing setting of experts.
- Gemma3nForCausalLM: not written yet. llama.cpp has much of the published models built in: the order of layers, which
  are sparse and how much, the layers that keep keys and values.
- PhiMoEForCausalLM (Phi-3.5-MoE): llama.cpp weighs the two best experts by one softmax, and Phi's own rule is another,
  by their sources; so the logits cannot agree.
- InternLM3ForCausalLM: transformers 5.23 has its configuration and not its network.
- KimiK25ForConditionalGeneration, KimiK3ForConditionalGeneration: not tried.
"""


@dataclass(frozen=True)
class Family:
    """What was found of one class, over its tiny models. A number is the worst difference; a text says what failed."""

    name: str
    gguf_name: str
    goes_in: str
    logits: str
    types: str
    way_back: str
    fit: str

    def row(self) -> str:
        return f"| {' | '.join(asdict(self).values())} |"


def tried(models: list[TinyModel], attempt: Callable[[TinyModel, Path], float | None]) -> str:
    """Return "yes", the largest number that an attempt gave, or what went wrong in the first that failed."""
    numbers = []
    for tiny in models:
        with tempfile.TemporaryDirectory() as folder:
            try:
                numbers.append(attempt(tiny, Path(folder)))
            except Exception as error:  # a benchmark reports what fails, whatever it is
                return f"no: {tiny.name}: {type(error).__name__}"
    measured = [number for number in numbers if number is not None]
    return f"{max(measured):.0e}" if measured else "yes" if numbers else ""


def goes_in(tiny: TinyModel, folder: Path) -> None:
    checkpoint = open_checkpoint(save(tiny.build(), folder))
    find_architecture(checkpoint.config).map_tensors(checkpoint)


def logits(tiny: TinyModel, folder: Path) -> float:
    model = tiny.build()
    to_gguf(open_checkpoint(save(model, folder)), folder / "model.gguf")
    expected = reference_logits(model).numpy()
    return float(np.abs(llama_cpp_logits(folder / "model.gguf") - expected).max() / expected.std())


@torch.no_grad()
def way_back(tiny: TinyModel, folder: Path) -> float:
    model = replace(open_tiny(tiny, folder), config=None)
    texts = torch.tensor([tokens()])
    expected = tiny.build()(input_ids=texts).logits
    return float((layer_by_layer(model, texts) - expected).abs().max() / expected.std())


def types(tiny: TinyModel, folder: Path) -> None:
    test_keys_tensors_and_types_are_those_of_llama_cpp(tiny.name, folder)


def fit(tiny: TinyModel, folder: Path) -> None:
    check_configuration_alone(tiny, folder)


def family(name: str, gguf_name: str) -> Family:
    models = [tiny for tiny in TINY_MODELS if tiny.model_class == name]
    recorded = [tiny for tiny in models if tiny.name in WIDE_MODELS and (RECORDED / f"{tiny.name}.json").exists()]
    # Llama 3's scaling leads back only with the lengths of published models, which no tiny one has
    leading_back = [tiny for tiny in models if "llama3" not in json.dumps(tiny.config)]
    return Family(
        name,
        gguf_name,
        tried(models, goes_in),
        tried(models, logits),
        tried(recorded, types) or "not converted",
        tried(leading_back, way_back),
        tried(models, fit),
    )


def by_converter(name: str) -> Family:
    """A class without a table, through llama.cpp's converter"""
    model_class = getattr(transformers, name)
    torch.manual_seed(0)
    model = model_class(model_class.config_class(**BY_CONVERTER[name])).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
        expected = model(input_ids=torch.tensor([tokens()])).logits
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(Path(folder) / "model")
        made = converted(Path(folder) / "model")
        path = Path(folder) / "model.gguf"
        metadata = {"general.architecture": made.architecture, "tokenizer.ggml.model": "no_vocab", **made.metadata}
        metadata[f"{made.architecture}.vocab_size"] = np.uint32(VOCABULARY)
        write_f32(path, metadata, list(made.tensors))
        theirs = torch.from_numpy(llama_cpp_logits(path)) - reference_logits(model)
        back = layer_by_layer(made, torch.tensor([tokens()])) - expected
    numbers = [float(each.abs().max() / expected.std()) for each in (theirs, back)]
    logits, way_back = (f"{number:.0e}" for number in numbers)
    return Family(name, made.architecture, "yes", logits, "the converter's", way_back, "from headers")


def rows_before() -> dict[str, str]:
    """Return the rows that the page has already, by class."""
    lines = PAGE.read_text(encoding="utf-8").splitlines() if PAGE.exists() else []
    return {line.split("|")[1].strip(): line for line in lines if line.count("|") == 8 and line.endswith("|")}


def page(families: list[Family], named: Collection[str]) -> str:
    rows = rows_before() | {each.name: each.row() for each in families}
    with_table = "\n".join(rows[name] for name in sorted(rows) if name in named)
    without = "\n".join(rows[name] for name in sorted(rows) if name in BY_CONVERTER)
    return f"{HEAD}{COLUMNS}{with_table}\n{WITHOUT_TABLE}{COLUMNS}{without}\n{REASONS}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("classes", nargs="*", help="all of them by default")
    parser.add_argument("--write", action="store_true", help="write docs/models.md")
    options = parser.parse_args()
    torch.set_num_threads(1)
    named = {name: each.gguf_name for each in known_architectures().values() for name in each.classes}
    tiny = {model.model_class for model in TINY_MODELS}
    families = []
    for name in options.classes or [*sorted(named.keys() & tiny), *BY_CONVERTER]:
        families.append(by_converter(name) if name in BY_CONVERTER else family(name, named[name]))
        print(families[-1].row(), flush=True)
    if options.write:
        PAGE.write_text(page(families, named.keys() & tiny), encoding="utf-8")
    print(json.dumps([asdict(each) for each in families]))


if __name__ == "__main__":
    main()
