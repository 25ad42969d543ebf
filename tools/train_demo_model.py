"""Train the small language model that ships with Thriftbit as src/thriftbit/demo_model.

The problem: a quantizer needs a real model to show its effect on: small enough to ship, free to redistribute, and
trained well enough that the damage of quantization shows in its perplexity. Random weights do not serve, and somebody
else's model makes every first run depend on a network and a licence.

The choices:
- Standard Llama (RMS norm, rotary positions with base 10000, SiLU gate, grouped-query attention, tied embeddings), so
  that llama.cpp runs it. Every weight-matrix row is 256 or 768 wide, so that all formats with blocks of 256 apply.
- enwik8, the first 100 MB of a Wikipedia dump from March 2006, stripped to prose. Split as usual: 90 MB for training,
  5 MB for progress reports, and the last 5 MB for the perplexity in the model card only.
- A byte-level BPE with GPT-2's pre-tokenizer (llama.cpp calls it "gpt-2"), trained on the training part only.
- Muon for the matrices, AdamW for embeddings and norms. The learning rate follows the elapsed part of the time
  budget, so that training ends annealed, however fast or busy the machine is. Early windows are 256 tokens long, later
  ones 512: short windows are cheaper, and long ones teach the later positions.
- Worker threads draw micro-batches from a queue instead of splitting each matrix product between them: on a shared
  machine, one slow core then delays a micro-batch and not every operation.

Left out: dropout (no text comes twice), weight averaging (the decay to zero does its work), compilation (it costs
minutes before the first step), training on instructions or chat.

Needs torch, transformers, tokenizers and safetensors. Run: python tools/train_demo_model.py --minutes 75
"""

import argparse
import json
import math
import platform
import re
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from demo_model_data import CONTEXT_TOKENS, END_OF_TEXT, SEED, VOCABULARY_SIZE, Corpus, prepare_corpus
from torch.nn import functional
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

SHORT_WINDOW_TOKENS = 256
LAYERS, WIDTH, FEED_FORWARD_WIDTH, HEADS, KEY_VALUE_HEADS, NORM_EPSILON = 6, 256, 768, 4, 2, 1e-5
HEAD_WIDTH = WIDTH // HEADS
WINDOWS_PER_STEP, WINDOWS_PER_MICRO_BATCH = 16, 4  # windows of 512 tokens
SHORT_WINDOW_PART, WARM_UP_PART = 0.6, 0.03  # parts of the time budget
MUON_RATE, ADAM_RATE, MUON_MOMENTUM, WEIGHT_DECAY, LARGEST_GRADIENT_NORM = 0.02, 0.004, 0.95, 0.1, 1.0
STEPS_PER_REPORT, CHECKPOINT_SECONDS = 20, 240.0
SAMPLES = (("The city of", 0.0), ("In the nineteenth century,", 0.8))  # prompts and temperatures


# Model and optimizer.


def build_model(end_of_text: int) -> LlamaForCausalLM:
    """A small standard Llama; the matrices that write to the residual stream start at zero."""
    config = LlamaConfig(
        vocab_size=VOCABULARY_SIZE,
        hidden_size=WIDTH,
        intermediate_size=FEED_FORWARD_WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=KEY_VALUE_HEADS,
        max_position_embeddings=CONTEXT_TOKENS,
        rms_norm_eps=NORM_EPSILON,
        tie_word_embeddings=True,
        bos_token_id=end_of_text,
        eos_token_id=end_of_text,
    )
    torch.manual_seed(SEED)
    model = LlamaForCausalLM(config)
    for layer in model.model.layers:
        torch.nn.init.zeros_(layer.self_attn.o_proj.weight)
        torch.nn.init.zeros_(layer.mlp.down_proj.weight)
    return model


def rotate(heads: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> torch.Tensor:
    """Rotary positions in Llama's layout: each half of a head pairs with the other half."""
    first, second = heads.chunk(2, dim=-1)
    return heads * cosine + torch.cat((second, first), dim=-1) * sine


def fast_loss(weights: dict[str, torch.Tensor], windows: torch.Tensor) -> torch.Tensor:
    """Mean next-token loss of the same Llama in bfloat16, with attention as plain products: faster here than fused."""
    inputs, targets = windows[:, :-1], windows[:, 1:]
    batch, length = inputs.shape
    powers = torch.arange(0, HEAD_WIDTH, 2) / HEAD_WIDTH
    angles = torch.arange(length)[:, None] / 10000.0**powers
    cosine = torch.cat((angles, angles), dim=1).cos().bfloat16()
    sine = torch.cat((-angles, angles), dim=1).sin().bfloat16()
    mask = torch.full((length, length), float("-inf"), dtype=torch.bfloat16).triu(1)

    def normalize(values: torch.Tensor, name: str) -> torch.Tensor:
        return functional.rms_norm(values, (WIDTH,), weights[name], NORM_EPSILON)

    embedding = weights["model.embed_tokens.weight"]
    stream = functional.embedding(inputs, embedding).bfloat16()
    for index in range(LAYERS):
        layer = f"model.layers.{index}."
        attention, mlp = layer + "self_attn.", layer + "mlp."
        normal = normalize(stream, layer + "input_layernorm.weight")
        query, key, value = (
            functional.linear(normal, weights[f"{attention}{name}_proj.weight"]).view(batch, length, -1, HEAD_WIDTH)
            for name in "qkv"
        )
        query = rotate(query.transpose(1, 2), cosine, sine) * HEAD_WIDTH**-0.5
        key = rotate(key.transpose(1, 2), cosine, sine).repeat_interleave(HEADS // KEY_VALUE_HEADS, dim=1)
        value = value.transpose(1, 2).repeat_interleave(HEADS // KEY_VALUE_HEADS, dim=1)
        mixed = torch.softmax(query @ key.transpose(-1, -2) + mask, dim=-1) @ value
        mixed = mixed.transpose(1, 2).reshape(batch, length, -1)
        stream = stream + functional.linear(mixed, weights[attention + "o_proj.weight"])
        normal = normalize(stream, layer + "post_attention_layernorm.weight")
        gate = functional.silu(functional.linear(normal, weights[mlp + "gate_proj.weight"]))
        up = functional.linear(normal, weights[mlp + "up_proj.weight"])
        stream = stream + functional.linear(gate * up, weights[mlp + "down_proj.weight"])
    logits = functional.linear(normalize(stream, "model.norm.weight"), embedding.bfloat16())
    return functional.cross_entropy(logits.float().flatten(0, 1), targets.flatten())


def orthogonalize(gradient: torch.Tensor) -> torch.Tensor:
    """The nearest orthogonal matrix, nearly, by five Newton-Schulz steps (Muon: Keller Jordan and others, 2024,
    https://kellerjordan.github.io/posts/muon/)."""
    tall = gradient.shape[0] > gradient.shape[1]
    matrix = (gradient.T if tall else gradient).bfloat16()
    matrix = matrix / (matrix.norm() + 1e-7)
    for _ in range(5):
        square = matrix @ matrix.T
        matrix = 3.4445 * matrix + (-4.7750 * square + 2.0315 * square @ square) @ matrix
    return (matrix.T if tall else matrix).float()


class Trainer:
    """Model, optimizer state and progress of one run."""

    def __init__(self, corpus: Corpus, thread_count: int) -> None:
        self.model = build_model(corpus.tokenizer.bos_token_id)
        self.parameters = dict(self.model.named_parameters())
        self.matrices = [name for name in self.parameters if name.endswith("_proj.weight")]
        others = [parameter for name, parameter in self.parameters.items() if name not in self.matrices]
        self.adam = torch.optim.AdamW(others, lr=ADAM_RATE, betas=(0.9, 0.95), weight_decay=0.0)
        self.momentum = {name: torch.zeros_like(self.parameters[name]) for name in self.matrices}
        window_count = (len(corpus.training) - 1) // CONTEXT_TOKENS
        used = corpus.training[: window_count * CONTEXT_TOKENS + 1]
        self.windows = used.unfold(0, CONTEXT_TOKENS + 1, CONTEXT_TOKENS)
        self.workers = ThreadPoolExecutor(thread_count, initializer=torch.set_num_threads, initargs=(1,))
        self.elapsed_seconds, self.tokens_seen, self.steps = 0.0, 0, 0

    def save(self, path: Path) -> None:
        """Store everything a later run needs to go on, in one move."""
        state: dict[str, Any] = {"model": self.model.state_dict(), "adam": self.adam.state_dict()}
        state |= {"momentum": self.momentum, "progress": (self.elapsed_seconds, self.tokens_seen, self.steps)}
        part = path.with_suffix(".part")
        torch.save(state, part)
        part.replace(path)

    def load(self, path: Path) -> None:
        """Go on where a stored run stood."""
        state = torch.load(path)
        self.model.load_state_dict(state["model"])
        self.adam.load_state_dict(state["adam"])
        self.momentum = state["momentum"]
        self.elapsed_seconds, self.tokens_seen, self.steps = state["progress"]

    def next_windows(self, elapsed_part: float) -> torch.Tensor:
        """This step's windows, from an order that is shuffled anew each epoch; halved while the run is young."""
        steps_per_epoch = len(self.windows) // WINDOWS_PER_STEP
        epoch, step = divmod(self.steps, steps_per_epoch)
        order = torch.randperm(len(self.windows), generator=torch.Generator().manual_seed(SEED + epoch))
        chosen = self.windows[order[step * WINDOWS_PER_STEP : (step + 1) * WINDOWS_PER_STEP]]
        if elapsed_part >= SHORT_WINDOW_PART:
            return chosen
        return torch.cat((chosen[:, : SHORT_WINDOW_TOKENS + 1], chosen[:, SHORT_WINDOW_TOKENS:]))

    def gradients(self, windows: torch.Tensor) -> tuple[float, dict[str, torch.Tensor]]:
        """Mean loss and clipped gradients; the workers draw micro-batches as they get free."""
        rounded = {name: self.parameters[name].detach().bfloat16().requires_grad_() for name in self.matrices}
        leaves = self.parameters | rounded  # norms and embeddings stay float32 leaves, rounded inside the graph

        def work(part: torch.Tensor) -> tuple[float, tuple[torch.Tensor, ...]]:
            weights = {name: v.bfloat16() if name.endswith("norm.weight") else v for name, v in leaves.items()}
            loss = fast_loss(weights, part)
            return loss.item(), torch.autograd.grad(loss, list(leaves.values()))

        parts = windows.chunk(WINDOWS_PER_STEP // WINDOWS_PER_MICRO_BATCH)
        results = list(self.workers.map(work, parts))
        groups = zip(*(gradients for _, gradients in results), strict=True)
        means = [torch.stack([each.float() for each in group]).mean(dim=0) for group in groups]
        norm = math.sqrt(sum(float(mean.square().sum()) for mean in means))
        scale = min(1.0, LARGEST_GRADIENT_NORM / (norm + 1e-6))
        loss = sum(part_loss for part_loss, _ in results) / len(parts)
        return loss, {name: mean * scale for name, mean in zip(leaves, means, strict=True)}

    @torch.no_grad()
    def update_matrix(self, name: str, gradient: torch.Tensor, rate: float) -> None:
        """One Muon step: orthogonalized Nesterov momentum."""
        momentum, parameter = self.momentum[name], self.parameters[name]
        momentum.lerp_(gradient, 1 - MUON_MOMENTUM)
        direction = orthogonalize(gradient.lerp(momentum, MUON_MOMENTUM))
        tallness = max(1.0, parameter.shape[0] / parameter.shape[1])
        parameter.mul_(1 - WEIGHT_DECAY * rate).sub_(direction, alpha=rate * math.sqrt(tallness))

    def step(self, elapsed_part: float) -> float:
        """One step at the rate that the elapsed part of the time budget sets: warm-up, then linear decay to zero."""
        rate = min(elapsed_part / WARM_UP_PART + 0.01, (1 - elapsed_part) / (1 - WARM_UP_PART), 1.0)
        windows = self.next_windows(elapsed_part)
        loss, gradients = self.gradients(windows)
        for name, parameter in self.parameters.items():
            parameter.grad = None if name in self.momentum else gradients[name]
        self.adam.param_groups[0]["lr"] = ADAM_RATE * rate
        self.adam.step()
        list(self.workers.map(lambda name: self.update_matrix(name, gradients[name], MUON_RATE * rate), self.matrices))
        self.steps += 1
        self.tokens_seen += windows.numel() - len(windows)
        return loss

    def run(self, budget_seconds: float, checkpoint: Path, progress_run: torch.Tensor) -> None:
        """Train until the time budget is spent."""
        started, average, saved_at = time.monotonic() - self.elapsed_seconds, 0.0, self.elapsed_seconds
        while self.elapsed_seconds < budget_seconds:
            loss = self.step(self.elapsed_seconds / budget_seconds)
            average = loss if not average else 0.98 * average + 0.02 * loss
            self.elapsed_seconds = time.monotonic() - started
            if self.steps % STEPS_PER_REPORT == 0:
                speed = self.tokens_seen / self.elapsed_seconds
                progress = f"step {self.steps}, {self.tokens_seen / 1e6:.2f} M tokens, {speed:.0f} tokens/s"
                print(f"{self.elapsed_seconds:.0f} s, {progress}, loss {average:.3f}", flush=True)
            if self.elapsed_seconds - saved_at > CHECKPOINT_SECONDS:
                self.save(checkpoint)
                saved_at = self.elapsed_seconds
                loss = score(self.model, progress_run[: 40 * CONTEXT_TOKENS + 1])
                print(f"perplexity on a piece of the progress part {math.exp(loss):.2f}", flush=True)
        self.save(checkpoint)


# Measuring, the model card and the folder.

CARD = """---
license: cc-by-sa-3.0
language: en
library_name: transformers
pipeline_tag: text-generation
---

# Thriftbit's demo model

A small Llama that writes recognisable English, for demonstrations and tests of quantization.
`{script}` trained it and wrote this card, numbers and samples included.

| | |
| --- | --- |
| Parameters | {parameters:,} (embeddings tied), stored in bfloat16 |
| Architecture | Llama: {architecture} |
| Tokenizer | {vocabulary} tokens of byte-level BPE, GPT-2's pre-tokenizer; `{end_of_text}` opens every article |
| Data | prose of Wikipedia, March 2006 (enwik8's first 90 MB): {training_articles:,} articles, {training_size} |
| Tokens seen | {tokens_seen:,} in {steps:,} steps ({epochs:.2f} epochs) |
| Held-out perplexity | **{perplexity:.2f} per token, {bits_per_byte:.3f} bits per byte** |
| Hardware and time | {threads} threads of {processor}; {minutes:.0f} minutes, {speed:,.0f} tokens/s |

The held-out text is the prose of enwik8's last 5 MB: {held_out_articles:,} articles, {held_out_bytes:,} bytes,
{held_out_tokens:,} tokens, in windows of {context} that do not overlap, every token but the first predicted, with the
saved weights and float32 arithmetic. Neither the tokenizer nor the training saw it.

Reproduce: `python {script} --minutes {minutes:.0f}`. The schedule follows the clock, so another
machine sees another number of tokens.

## Samples
{samples}
## Licence

The text is by Wikipedia's contributors, under CC BY-SA 3.0. Whether weights are a derived work of their training text
is unsettled, so the stricter reading is taken: the weights and the tokenizer are under CC BY-SA 3.0 too.

## Limits

It knows how English sentences of an encyclopedia look, and little else: what it states is mostly invented, it loses the
thread after a sentence or two, repeats itself when it always takes the likeliest token, follows no instructions, and
carries whatever bias and error Wikipedia had in 2006. Use it to see what a format does to a model, and for no more.
"""


@torch.no_grad()
def score(model: LlamaForCausalLM, run: torch.Tensor) -> float:
    """Mean loss in nats per token, over windows of 512 tokens that do not overlap."""
    total_nats = 0.0
    for start in range(0, len(run) - 1, CONTEXT_TOKENS):
        window = run[start : start + CONTEXT_TOKENS + 1]
        logits = model(input_ids=window[None, :-1], use_cache=False).logits[0].float()
        total_nats += float(functional.cross_entropy(logits, window[1:], reduction="sum"))
    return total_nats / (len(run) - 1)


def write_sample(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, prompt: str, temperature: float) -> str:
    """A continuation of the prompt as the start of an article; temperature 0 takes the likeliest token."""
    torch.manual_seed(SEED)
    inputs = tokenizer(END_OF_TEXT + prompt, return_tensors="pt")
    choice: dict[str, Any] = {"do_sample": True, "temperature": temperature, "top_k": 0} if temperature else {}
    output = model.generate(**inputs, max_new_tokens=90, pad_token_id=tokenizer.eos_token_id, **choice)
    return str(tokenizer.decode(output[0], skip_special_tokens=True))


def processor_name() -> str:
    """The processor as Linux names it, or else its architecture."""
    described = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    named = re.search(r"^model name\s*:\s*(.+)$", described, re.MULTILINE)
    return named[1] if named else platform.machine()


def write_card(folder: Path, trainer: Trainer, corpus: Corpus, thread_count: int) -> None:
    """Measure the saved folder, not the model in memory, and describe it."""
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    loss, samples = score(model, corpus.held_out), ""
    for prompt, temperature in SAMPLES:
        text = write_sample(model, tokenizer, prompt, temperature).replace("\n", "\n> ")
        samples += f'\nTemperature {temperature:g}, from "{prompt}":\n\n> {text}\n'
    config, facts = model.config, corpus.facts
    card = CARD.format(
        **facts,
        script="tools/train_demo_model.py",
        parameters=model.num_parameters(),
        architecture=f"{config.num_hidden_layers} layers, width {config.hidden_size}, feed-forward width "
        f"{config.intermediate_size}, {config.num_attention_heads} heads over {config.num_key_value_heads} "
        f"key-value heads, context {config.max_position_embeddings}",
        vocabulary=len(tokenizer),
        end_of_text=END_OF_TEXT,
        training_size=f"{facts['training_bytes']:,} bytes, {len(corpus.training):,} tokens",
        tokens_seen=trainer.tokens_seen,
        steps=trainer.steps,
        epochs=trainer.tokens_seen / len(corpus.training),
        perplexity=math.exp(loss),
        bits_per_byte=loss * (len(corpus.held_out) - 1) / math.log(2) / facts["held_out_bytes"],
        threads=thread_count,
        processor=processor_name(),
        minutes=trainer.elapsed_seconds / 60,
        speed=trainer.tokens_seen / trainer.elapsed_seconds,
        held_out_tokens=len(corpus.held_out),
        context=CONTEXT_TOKENS,
        samples=samples,
    )
    (folder / "README.md").write_text(card, encoding="utf-8")


def write_files(folder: Path, trainer: Trainer, tokenizer: PreTrainedTokenizerFast) -> None:
    """Weights, configuration and tokenizer as Hugging Face lays them out, readable by older transformers too."""
    end_of_text = tokenizer.bos_token_id
    trainer.model.generation_config = GenerationConfig(bos_token_id=end_of_text, eos_token_id=end_of_text)
    trainer.model.bfloat16().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    kept = ("bos_token", "eos_token", "model_max_length")
    stored = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    tidy = {key: stored[key] for key in kept} | {"tokenizer_class": "PreTrainedTokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps(tidy, indent=2) + "\n", encoding="utf-8")
    (folder / "model.safetensors").chmod(0o644)  # written for its owner only


def save_folder(output: Path, trainer: Trainer, corpus: Corpus, thread_count: int) -> None:
    """Write the Hugging Face folder beside its place, then move it there whole."""
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".demo_model-") as temporary:
        folder = Path(temporary) / "new"
        write_files(folder, trainer, corpus.tokenizer)
        write_card(folder, trainer, corpus, thread_count)
        if output.exists():
            output.rename(Path(temporary) / "old")
        folder.rename(output)


def main() -> None:
    """Prepare the data, train for the given time and save the folder."""
    parser = argparse.ArgumentParser(description="Train Thriftbit's demo model.")
    root = Path(__file__).resolve().parent.parent
    parser.add_argument("--enwik8", type=Path, help="enwik8.gz, where it is already at hand")
    parser.add_argument("--minutes", type=float, default=75.0, help="wall-clock time to train for")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--work", type=Path, default=root / "build" / "demo_model", help="data and checkpoints")
    parser.add_argument("--output", type=Path, default=root / "src" / "thriftbit" / "demo_model")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(options.threads)
    corpus = prepare_corpus(options.enwik8, options.work)
    trainer, checkpoint = Trainer(corpus, options.threads), options.work / "checkpoint.pt"
    if checkpoint.exists():
        trainer.load(checkpoint)
    trainer.run(options.minutes * 60, checkpoint, corpus.progress)
    save_folder(options.output, trainer, corpus, options.threads)


if __name__ == "__main__":
    main()
