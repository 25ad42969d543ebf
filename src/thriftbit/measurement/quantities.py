"""What can be measured: every quantity's unit, which way is better, and what it means, in one table.

Nothing else in Thriftbit says what "kl_divergence_mean" is: rows are checked against this table, the report takes its
words from it, and `python -m thriftbit.measurement` prints it for docs/measurements.md.

Of several windows of text (or repetitions) the value is what the whole says, and the interval says how sure that is.
Definitions of the accuracy rows are those of `llama-perplexity --kl-divergence`: only the second half of every window
counts, p is the original's distribution of the next token and q the quantized model's, logarithms are natural.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Quantity:
    """unit: of the value. better: which way the user would have it. label: for a table. meaning: a sentence for
    people who do not know the word."""

    unit: str
    better: Literal["less", "more", ""]
    label: str
    meaning: str


QUANTITIES: dict[str, Quantity] = {
    # what text says
    "perplexity": Quantity(
        "tokens", "less", "perplexity", "how many tokens the model hesitates between, on average: exp(−mean log q)"
    ),
    "perplexity_ratio": Quantity(
        "ratio", "less", "perplexity, × the original's", "perplexity of the quantized model divided by the original's"
    ),
    "kl_divergence_mean": Quantity(
        "nats", "less", "KL divergence, mean", "how far the predictions are from the original's: mean of Σ p·log(p/q)"
    ),
    "kl_divergence_median": Quantity(
        "nats", "less", "KL divergence, median", "half of all predictions are closer to the original's than this"
    ),
    "kl_divergence_99": Quantity(
        "nats", "less", "KL divergence, 99%", "one prediction in a hundred is farther from the original's than this"
    ),
    "kl_divergence_99_9": Quantity(
        "nats", "less", "KL divergence, 99.9%", "one prediction in a thousand is farther from the original's than this"
    ),
    "same_top_token": Quantity(
        "share", "more", "same first choice", "how often both models find the same next token the likeliest"
    ),
    "token_probability_change_rms": Quantity(
        "share", "less", "probability change, RMS", "root mean square of q − p for the token that the text goes on with"
    ),
    # what tasks say
    "task_accuracy": Quantity("share", "more", "right answers", "share of multiple-choice questions answered right"),
    "task_accuracy_difference": Quantity(
        "share", "more", "right answers, difference", "the quantized model's accuracy minus the original's"
    ),
    "answers_flipped": Quantity(
        "share", "less", "answers changed", "share of questions that the two models answer differently"
    ),
    # what it costs to run
    "file_size": Quantity("bytes", "less", "file", "size of the file on disk"),
    "load_time": Quantity("s", "less", "loading", "from starting the engine until it takes a prompt"),
    "first_token_time": Quantity(
        "s", "less", "first token", "from the prompt until the first token of the answer, with nothing cached"
    ),
    "prefill_rate": Quantity("tokens/s", "more", "reading", "tokens of the prompt that are read in a second"),
    "decode_rate": Quantity("tokens/s", "more", "writing", "tokens of the answer that are written in a second"),
    "peak_memory": Quantity(
        "bytes", "less", "memory", "the most that the engine's process held at any time, the weights it maps included"
    ),
    "peak_gpu_memory": Quantity("bytes", "less", "GPU memory", "the most that the engine's process held on the GPU"),
    "energy_per_token": Quantity("J/token", "less", "energy", "energy for each token written, idle power included"),
    "load_time_ratio": Quantity("ratio", "less", "loading, × the original's", "loading time ÷ the original's"),
    "first_token_time_ratio": Quantity(
        "ratio", "less", "first token, × the original's", "time to the first token ÷ the original's"
    ),
    "prefill_rate_ratio": Quantity("ratio", "more", "reading, × the original's", "reading rate ÷ the original's"),
    "decode_rate_ratio": Quantity("ratio", "more", "writing, × the original's", "writing rate ÷ the original's"),
    "peak_memory_ratio": Quantity("ratio", "less", "memory, × the original's", "peak memory ÷ the original's"),
    "energy_per_token_ratio": Quantity("ratio", "less", "energy, × the original's", "energy a token ÷ the original's"),
    # what people read
    "answer": Quantity("tokens", "", "answer", "what the model writes to a prompt; the text is in `detail`"),
}
