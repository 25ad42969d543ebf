"""GGUF files with whole headers and a few weights, and the chat templates of families, for tests of export."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
# A text of the system's own where the conversation has none, as Qwen 2.5 and SmolLM2 have it
CHATML_WITH_DEFAULT = (
    "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\\nYou are Tiny.<|im_end|>\\n' }}{% endif %}"
    + CHATML
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('No system role') }}{% endif %}"
    "{% for message in messages %}{% set role = 'model' if message['role'] == 'assistant' else 'user' %}"
    "{{ '<start_of_turn>' + role + '\\n' + message['content'] | trim + '<end_of_turn>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"
)
LLAMA_3 = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}"
    "{{ message['content'] | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
)
LLAMA_2 = (
    "{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] %}{% set rest = messages[1:] %}"
    "{% else %}{% set system = false %}{% set rest = messages %}{% endif %}{% for message in rest %}"
    "{% set content = message['content'] %}{% if loop.index0 == 0 and system %}"
    "{% set content = '<<SYS>>\\n' + system + '\\n<</SYS>>\\n\\n' + message['content'] %}{% endif %}"
    "{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content + ' [/INST]' }}"
    "{% else %}{{ ' ' + content + ' ' + eos_token }}{% endif %}{% endfor %}"
)
# The system's text before the last question, as Mistral's since 7B v0.3 have it: no row of pieces
MOVING_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] %}{% set rest = messages[1:] %}"
    "{% else %}{% set rest = messages %}{% endif %}{{ bos_token }}{% for message in rest %}"
    "{% if message['role'] == 'user' %}{{ '[INST] ' }}{% if loop.last and system is defined %}{{ system + '\\n\\n' }}"
    "{% endif %}{{ message['content'] + '[/INST]' }}{% else %}{{ ' ' + message['content'] + eos_token }}{% endif %}"
    "{% endfor %}"
)
TOKENS: tuple[str, ...] = (
    "<s>",
    "</s>",
    "<|im_start|>",
    "<|im_end|>",
    "<start_of_turn>",
    "<end_of_turn>",
    "<|eot_id|>",
)
TOKENS += ("<|start_header_id|>", "<|end_header_id|>", "word", "user")


def write_model(
    path: Path,
    template: str | None = CHATML,
    *,
    architecture: str = "llama",
    tokens: Sequence[str] = TOKENS,
    control: int = 9,
    tensor_type: gguf.GGMLQuantizationType | None = None,
    texts: dict[str, str] | None = None,
    numbers: dict[str, Any] | None = None,
    add_bos: bool = True,
    seed: int = 0,
) -> Path:
    """control: so many of the tokens, the first ones, are no text. numbers: metadata, whole ones as uint32"""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_file_type(int(gguf.LlamaFileType.MOSTLY_Q4_K_M))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(list(tokens))
    writer.add_token_types([3] * control + [1] * (len(tokens) - control))
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_add_bos_token(add_bos)
    if template is not None:
        writer.add_chat_template(template)
    for key, text in (texts or {}).items():
        writer.add_string(key, text)
    for key, number in (numbers or {}).items():
        writer.add_float32(key, number) if isinstance(number, float) else writer.add_uint32(key, number)
    writer.add_tensor("token_embd.weight", np.zeros((len(tokens), 256), np.float32))
    if tensor_type is None:
        weights = np.random.default_rng(seed).standard_normal((64, 256), np.float32)
        writer.add_tensor("blk.0.ffn_up.weight", weights)
    else:
        block, size = gguf.GGML_QUANT_SIZES[tensor_type]
        writer.add_tensor("blk.0.ffn_up.weight", np.zeros((4, 256 // block * size), np.uint8), raw_dtype=tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def write_parts(folder: Path, value: float = 0) -> list[Path]:
    """Return a model in two files. value: of its weights."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in (1, 2):
        path = folder / f"big-Q4_K_M-{number:05d}-of-00002.gguf"
        writer = gguf.GGUFWriter(path, "llama")
        writer.add_uint16("split.no", number - 1)
        writer.add_uint16("split.count", 2)
        if number == 1:
            writer.add_tensor("token_embd.weight", np.zeros((4, 32), np.float32))
        writer.add_tensor(f"blk.{number - 1}.ffn_up.weight", np.full((4, 32), value + number, np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        paths.append(path)
    return paths
