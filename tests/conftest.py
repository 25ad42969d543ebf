"""What tests of several rooms share: a tiny model on disk, and the command line as users run it."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

ROOT = Path(__file__).parents[1]
WIDTH, FFN, VALUES, LAYERS, VOCABULARY = 256, 512, 128, 3, 257

# Started in the background by a shell, we would pass on to every program we test that it ignores Ctrl-C.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

RunThriftbit = Callable[..., "subprocess.CompletedProcess[str]"]


class _Listener(logging.Handler):
    def __init__(self, listen: Callable[[str], object]) -> None:
        super().__init__()
        self._listen = listen

    def emit(self, record: logging.LogRecord) -> None:
        self._listen(record.getMessage())


@contextmanager
def messages_to(listen: Callable[[str], object]) -> Iterator[None]:
    """Inside, `listen` gets what the package logs, information and above."""
    logger, handler = logging.getLogger("thriftbit"), _Listener(listen)
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


@pytest.fixture
def told() -> Iterator[list[str]]:
    """Yield what the package logs during the test, information and above."""
    messages: list[str] = []
    with messages_to(messages.append):
        yield messages


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a tiny Llama with random weights, every row of which takes blocks of 256."""
    folder = tmp_path_factory.mktemp("models") / "tiny-llama"
    folder.mkdir()
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": VOCABULARY,
        "hidden_size": WIDTH,
        "intermediate_size": FFN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "bos_token_id": 256,
        "eos_token_id": 256,
    }
    (folder / "config.json").write_text(json.dumps(config))
    shapes = {
        "self_attn.q_proj": (WIDTH, WIDTH),
        "self_attn.k_proj": (VALUES, WIDTH),
        "self_attn.v_proj": (VALUES, WIDTH),
        "self_attn.o_proj": (WIDTH, WIDTH),
        "mlp.gate_proj": (FFN, WIDTH),
        "mlp.up_proj": (FFN, WIDTH),
        "mlp.down_proj": (WIDTH, FFN),
    }
    random = np.random.default_rng(0)
    weights = {
        f"model.layers.{layer}.{name}.weight": random.standard_normal(shape, np.float32) / np.float32(16)
        for layer in range(LAYERS)
        for name, shape in shapes.items()
    }
    weights |= {
        f"model.layers.{layer}.{name}.weight": np.ones(WIDTH, np.float32)
        for layer in range(LAYERS)
        for name in ("input_layernorm", "post_attention_layernorm")
    }
    weights["model.norm.weight"] = np.ones(WIDTH, np.float32)
    weights["model.embed_tokens.weight"] = random.standard_normal((VOCABULARY, WIDTH), np.float32)
    weights["lm_head.weight"] = random.standard_normal((VOCABULARY, WIDTH), np.float32) / np.float32(16)
    save_file(weights, folder / "model.safetensors")

    alphabet = {character: number for number, character in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=alphabet, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|endoftext|>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"eos_token": "<|endoftext|>", "bos_token": "<|endoftext|>"})
    )
    return folder


@pytest.fixture(scope="session")
def thriftbit_environment() -> dict[str, str]:
    """Return the environment for a process of ours: this source tree, no network, no terminal, and defaults of its own:
    `quantize` leaves out the check at its end, which loads torch; tests of the check name another THRIFTBIT_CONFIG."""
    ours = {"PYTHONPATH": str(ROOT / "src"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    ours["THRIFTBIT_CONFIG"] = str(ROOT / "tests" / "config.toml")
    return {key: value for key, value in os.environ.items() if key != "COLUMNS"} | ours


@pytest.fixture
def run_thriftbit(tmp_path: Path, thriftbit_environment: dict[str, str]) -> RunThriftbit:
    """Return a function that runs `thriftbit ARGUMENTS` in an empty folder."""

    def run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-P", "-m", "thriftbit", *map(str, arguments)],
            cwd=tmp_path,
            env=thriftbit_environment | environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
        )

    return run
