"""Do our numbers agree with llama.cpp's own tool?

    python benchmarks/agreement.py [MODEL FILE.gguf] [--tools FOLDER] [--windows 16]

Runs `llama-perplexity --kl-divergence` and our streamed comparison on the same windows of the same text; MODEL is the
original (a folder or a GGUF), FOLDER where the tool is if it is not on the PATH. Without a model, the one in the box is
taken, in 4 bits. Prints both with the tool's standard errors, the difference in
those, and one JSON line last.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import torch

from thriftbit import make_plan, open_model, quantize
from thriftbit.demo import DEMO_MODEL
from thriftbit.measurement.comparison import compare
from thriftbit.measurement.material import TextWindows, windows_of
from thriftbit.measurement.original import original_file
from thriftbit.measurement.texts import Text, read_text
from thriftbit.network.configuration import configuration_of
from thriftbit.network.network import Network
from thriftbit.network.weights import Weights
from thriftbit.runtime.tokenizer import Tokenizer
from thriftbit.sources.model import Model

CONTEXT_TOKENS = 512
CHARACTERS_PER_TOKEN = 8  # more than enough to fill a window

# row -> what precedes its number in the tool's output
PRINTED = {
    "perplexity": r"Mean PPL\(Q\)",
    "perplexity of the original": r"Mean PPL\(base\)",
    "perplexity_ratio": r"Mean PPL\(Q\)/PPL\(base\)",
    "kl_divergence_mean": r"Mean +KLD",
    "kl_divergence_median": r"Median +KLD",
    "kl_divergence_99": r"99\.0% +KLD",
    "kl_divergence_99_9": r"99\.9% +KLD",
    "token_probability_change_rms": r"RMS Δp",
    "same_top_token": r"Same top p",
}
PERCENT = ("token_probability_change_rms", "same_top_token")


def theirs(
    tool: Path, original: Path, quantized: Path, text: str, windows: int, threads: int
) -> dict[str, tuple[float, float]]:
    """Return value and standard error of each row; not a number where the tool gives none."""
    with tempfile.TemporaryDirectory() as folder:
        source, logits = Path(folder) / "text.txt", Path(folder) / "logits"
        source.write_text(text, encoding="utf-8")
        common = [str(tool), "-f", str(source), "-c", str(CONTEXT_TOKENS), "--chunks", str(windows), "-t", str(threads)]
        common += ["--kl-divergence-base", str(logits)]
        subprocess.run([*common, "-m", str(original)], check=True, capture_output=True)
        done = subprocess.run(
            [*common, "-m", str(quantized), "--kl-divergence"], check=True, capture_output=True, text=True
        )
    found = {}
    for what, words in PRINTED.items():
        match = re.search(rf"^ *{words} *: +([\d.]+)(?: ± +([\d.]+))?", done.stdout + done.stderr, re.MULTILINE)
        assert match, f"the tool printed no {what}"
        scale = 0.01 if what in PERCENT else 1
        found[what] = scale * float(match[1]), scale * float(match[2] or "nan")
    return found


def ours(original: Model, quantized: Model, material: TextWindows) -> dict[str, float]:
    network = Network(configuration_of(original), torch.device("cpu"))
    passages = [passage for number in range(material.units) for passage in material.unit(number)]
    first, second = compare(network, [Weights(original), Weights(quantized)], passages)
    before = np.stack([scores.log_probability for scores in first])
    after = np.stack([scores.log_probability for scores in second])
    divergence = np.stack([scores.divergence for scores in second])
    return {
        "perplexity": float(np.exp(-after.mean())),
        "perplexity of the original": float(np.exp(-before.mean())),
        "perplexity_ratio": float(np.exp((before - after).mean())),
        "kl_divergence_mean": float(divergence.mean()),
        "kl_divergence_median": float(np.median(divergence)),
        "kl_divergence_99": float(np.quantile(divergence, 0.99)),
        "kl_divergence_99_9": float(np.quantile(divergence, 0.999)),
        "token_probability_change_rms": float(np.sqrt(np.square(np.exp(after) - np.exp(before)).mean())),
        "same_top_token": float(np.mean([scores.same_top for scores in second])),
    }


def report(original: Model, file: Path, tool: Path, windows: int, threads: int) -> None:
    quantized = open_model(file, allow_requantize=True)
    text = read_text("prose").text[: CHARACTERS_PER_TOKEN * CONTEXT_TOKENS * windows]
    with Tokenizer(original.metadata, original.source) as tokenizer:
        cut = windows_of(
            Text("prose", text, "prose"),
            lambda texts: tokenizer.tokenize(texts, add_special=True),
            original.metadata,
            CONTEXT_TOKENS,
            None,
        )
    material = TextWindows("prose", cut.tokens[:windows], np.arange(windows))
    mine = ours(original, quantized, material)
    with original_file(original) as path:
        tools = theirs(tool, path, file, text, windows, threads)
    print("| row | ours | llama-perplexity | difference, in its standard errors |\n| --- | ---: | ---: | ---: |")
    for what, value in mine.items():
        their, error = tools[what]
        apart = f"{(value - their) / error:+.2f}" if error == error else "–"
        print(f"| {what} | {value:.5g} | {their:.5g} ± {error:.2g} | {apart} |")
    document = {
        what: {"ours": value, "theirs": tools[what][0], "error": tools[what][1]} for what, value in mine.items()
    }
    print(json.dumps({"benchmark": "agreement", "windows": windows, "rows": document}).replace("NaN", "null"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default=str(DEMO_MODEL))
    parser.add_argument("file", nargs="?", type=Path)
    parser.add_argument("--tools", help="the folder that llama-perplexity is in")
    parser.add_argument("--windows", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    tool = shutil.which("llama-perplexity", path=arguments.tools)
    if tool is None:
        print(json.dumps({"benchmark": "agreement", "skipped": "there is no llama-perplexity here; see --tools"}))
        return
    torch.set_num_threads(arguments.threads)
    original = open_model(arguments.model)
    with tempfile.TemporaryDirectory() as folder:
        file = arguments.file or quantize(original, make_plan(original, "Q4_K_M"), Path(folder) / "4-bit.gguf").path
        report(original, file, Path(tool), arguments.windows, arguments.threads)


if __name__ == "__main__":
    main()
