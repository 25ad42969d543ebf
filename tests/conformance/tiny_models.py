"""Tiny random models of every family, made by transformers: what the architecture tables are proven on.

Shapes are chosen to tell mistakes apart: an odd vocabulary, grouped heads, heads that do not make up the width where
the family allows it, no two lengths alike, no number at its default. Weights are random and nowhere trivial (norms
are not one, biases not zero), so that a tensor dropped, swapped, transposed or permuted wrongly moves the logits.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import PreTrainedModel
from transformers.activations import GELUActivation, GELUTanh, NewGELUActivation

from .tiny_delta_net import DELTA_NETS
from .tiny_gemma import GEMMAS
from .tiny_hybrid import HYBRID
from .tiny_latent import LATENTS
from .tiny_llama_like import LLAMA_LIKE
from .tiny_pictures import PICTURES
from .tiny_shapes import LINEAR, LLAMA3, SHAPE, VISION, VOCABULARY, WIDE_HEADS, YARN

TOKENS = 96
GROWING_QUERIES = YARN | {
    "original_max_position_embeddings": 32,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
    "llama_4_scaling_beta": 0.4,
}
GPT2 = {
    "vocab_size": VOCABULARY,
    "n_embd": 48,
    "n_layer": 2,
    "n_head": 6,
    "n_positions": 128,
    "layer_norm_epsilon": 0.02,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
BIASES = {"attention_bias": True, "mlp_bias": True}
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 1000.0,
    "short_factor": [1.0, 1.5, 2.0],
    "long_factor": [1.0, 4.0, 9.0],
    "partial_rotary_factor": 0.75,
}
NEOX = SHAPE | {
    "layer_norm_eps": 0.02,
    "rope_parameters": {"rope_type": "default", "rope_theta": 700.0, "partial_rotary_factor": 0.25},
}
STARCODER = SHAPE | {"norm_epsilon": 0.02}
COHERE = SHAPE | {
    "num_hidden_layers": 5,
    "sliding_window": 24,
    "layer_norm_eps": 0.02,
    "logit_scale": 0.3,
}
PHI = SHAPE | {"sliding_window": None}
GPT_OSS = {
    "head_dim": 16,
    "num_local_experts": 5,
    "num_experts_per_tok": 2,
    "intermediate_size": 24,
    "sliding_window": 24,
}


@dataclass(frozen=True)
class TinyModel:
    """name: of the test; model_class: of transformers, its configuration's is derived; config: the settings."""

    name: str
    model_class: str
    config: dict[str, Any] = field(default_factory=dict)
    config_class: str = ""

    def build(self) -> PreTrainedModel:
        config_class = self.config_class or self.model_class.replace("ForCausalLM", "Config").replace(
            "LMHeadModel", "Config"
        )
        torch.manual_seed(1)
        config = getattr(transformers, config_class)(
            **copy.deepcopy(self.config)
        )  # transformers writes into what it is given
        config._attn_implementation = "eager"
        model = getattr(transformers, self.model_class)(config).eval()
        _randomize(model)
        return model


def _randomize(model: PreTrainedModel) -> None:
    """Weights of a size that keeps activations near one; everything one-dimensional far from its initial value."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim == 1:
                parameter.add_(0.3 * noise)
            elif "embed" in name or "wte" in name or "wpe" in name:
                parameter.copy_(noise)
            else:
                parameter.copy_(1.5 * noise / parameter.shape[-1] ** 0.5)
        for name, buffer in model.named_buffers():
            if name.endswith(("correction_bias", "expert_bias", "layer_scalar")):
                buffer.add_(0.3 * torch.randn(buffer.shape, generator=generator))


class GgmlGelu(torch.nn.Module):
    """GELU as llama.cpp's CPU code has it: the tanh approximation, looked up in a table of half-precision numbers.
    Taking it into the reference leaves only float32 rounding between the two."""

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        rounded = torch.nn.functional.gelu(values.half().float(), approximate="tanh").half().float()
        return torch.where(values <= -10, torch.zeros_like(values), torch.where(values >= 10, values, rounded))


def with_ggml_gelu(model: PreTrainedModel) -> PreTrainedModel:
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, (GELUActivation, GELUTanh, NewGELUActivation)):
                setattr(module, name, GgmlGelu())
    return model


def has_gelu(model: PreTrainedModel) -> bool:
    return any(isinstance(module, GgmlGelu) for module in model.modules())


def save(model: PreTrainedModel, folder: Path) -> Path:
    model.save_pretrained(folder)
    return folder


def tokens() -> list[int]:
    generator = torch.Generator().manual_seed(3)
    return torch.randint(3, VOCABULARY, (TOKENS,), generator=generator).tolist()


def reference_logits(model: PreTrainedModel) -> torch.Tensor:
    """Return float32 (TOKENS, vocabulary)."""
    with torch.no_grad():
        return with_ggml_gelu(model)(input_ids=torch.tensor([tokens()])).logits[0]


TINY_MODELS = (
    TinyModel("llama", "LlamaForCausalLM", SHAPE | WIDE_HEADS),
    TinyModel("llama-tied-biased", "LlamaForCausalLM", SHAPE | BIASES | {"tie_word_embeddings": True}),
    TinyModel("llama-llama3-rope", "LlamaForCausalLM", SHAPE | WIDE_HEADS | {"rope_parameters": LLAMA3}),
    TinyModel("llama-linear-rope", "LlamaForCausalLM", SHAPE | {"rope_parameters": LINEAR}),
    TinyModel("llama-yarn-rope", "LlamaForCausalLM", SHAPE | WIDE_HEADS | {"rope_parameters": YARN}),
    TinyModel(
        "llama-yarn-rope-own-magnitude",
        "LlamaForCausalLM",
        SHAPE | WIDE_HEADS | {"rope_parameters": YARN | {"attention_factor": 1.4}},
    ),
    TinyModel(
        "llama-yarn-rope-mscale",
        "LlamaForCausalLM",
        SHAPE | {"rope_parameters": YARN | {"mscale": 0.7, "mscale_all_dim": 1.2}},
    ),
    TinyModel(
        "llama-longrope",
        "LlamaForCausalLM",
        SHAPE
        | {
            "rope_parameters": LONGROPE
            | {"partial_rotary_factor": 1.0, "original_max_position_embeddings": 32}
            | {"short_factor": [1.0, 1.5, 2.0, 2.5], "long_factor": [1.0, 4.0, 9.0, 16.0]}
        },
    ),
    TinyModel("mistral", "MistralForCausalLM", SHAPE | WIDE_HEADS | {"sliding_window": None}),
    TinyModel("ministral3", "Ministral3ForCausalLM", SHAPE | WIDE_HEADS | {"rope_parameters": GROWING_QUERIES}),
    TinyModel(
        "mistral-small3",
        "Mistral3ForConditionalGeneration",
        {
            "text_config": SHAPE | WIDE_HEADS | {"model_type": "mistral", "sliding_window": None},
            "vision_config": VISION | {"model_type": "pixtral", "head_dim": 8},
            "tie_word_embeddings": False,
        },
        "Mistral3Config",
    ),
    TinyModel(
        "ministral3-multimodal",
        "Mistral3ForConditionalGeneration",
        {
            "text_config": SHAPE
            | {"model_type": "ministral3", "head_dim": 16, "rope_parameters": GROWING_QUERIES}
            | {"tie_word_embeddings": True},
            "vision_config": VISION | {"model_type": "pixtral", "head_dim": 8},
            "tie_word_embeddings": True,
        },
        "Mistral3Config",
    ),
    TinyModel(
        "minimax-m2",
        "MiniMaxM2ForCausalLM",
        SHAPE | WIDE_HEADS | {"num_local_experts": 5, "num_experts_per_tok": 2, "rotary_dim": 8},
    ),
    TinyModel("mixtral", "MixtralForCausalLM", SHAPE | {"num_local_experts": 5, "num_experts_per_tok": 2}),
    TinyModel("qwen2", "Qwen2ForCausalLM", SHAPE),
    TinyModel("qwen2-tied-yarn", "Qwen2ForCausalLM", SHAPE | {"tie_word_embeddings": True, "rope_parameters": YARN}),
    TinyModel("qwen3", "Qwen3ForCausalLM", SHAPE | WIDE_HEADS),
    TinyModel("qwen3-tied", "Qwen3ForCausalLM", SHAPE | WIDE_HEADS | {"tie_word_embeddings": True}),
    TinyModel(
        "qwen3-moe",
        "Qwen3MoeForCausalLM",
        SHAPE
        | WIDE_HEADS
        | {"num_experts": 7, "num_experts_per_tok": 3, "moe_intermediate_size": 24, "norm_topk_prob": True},
    ),
    TinyModel("phi3", "Phi3ForCausalLM", PHI),
    TinyModel(
        "phi3-longrope-long",
        "Phi3ForCausalLM",
        PHI | {"original_max_position_embeddings": 32, "rope_parameters": LONGROPE, "tie_word_embeddings": True},
    ),
    TinyModel(
        "phi3-longrope-short",
        "Phi3ForCausalLM",
        PHI | {"max_position_embeddings": 1024, "original_max_position_embeddings": 256, "rope_parameters": LONGROPE},
    ),
    TinyModel("smollm3", "SmolLM3ForCausalLM", SHAPE | WIDE_HEADS | {"num_hidden_layers": 5}),
    TinyModel("smollm3-untied", "SmolLM3ForCausalLM", SHAPE | {"num_hidden_layers": 4, "tie_word_embeddings": False}),
    TinyModel(
        "granite",
        "GraniteForCausalLM",
        SHAPE
        | {
            "attention_multiplier": 0.2,
            "embedding_multiplier": 3.0,
            "residual_multiplier": 0.4,
            "logits_scaling": 1.7,
        },
    ),
    TinyModel("granite-tied-biased", "GraniteForCausalLM", SHAPE | BIASES | {"tie_word_embeddings": True}),
    TinyModel("granite-llama3-rope", "GraniteForCausalLM", SHAPE | {"rope_parameters": LLAMA3}),
    TinyModel("olmo2", "Olmo2ForCausalLM", SHAPE),
    TinyModel("olmo2-tied", "Olmo2ForCausalLM", SHAPE | {"tie_word_embeddings": True}),
    TinyModel("gpt2", "GPT2LMHeadModel", GPT2),
    TinyModel("gpt2-untied", "GPT2LMHeadModel", GPT2 | {"n_inner": 80, "tie_word_embeddings": False}),
    TinyModel("gpt-neox", "GPTNeoXForCausalLM", NEOX),
    TinyModel(
        "gpt-neox-serial-tied",
        "GPTNeoXForCausalLM",
        NEOX
        | {
            "use_parallel_residual": False,
            "tie_word_embeddings": True,
            "rope_parameters": {"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 0.5},
        },
    ),
    TinyModel("starcoder2", "Starcoder2ForCausalLM", STARCODER),
    TinyModel("starcoder2-untied", "Starcoder2ForCausalLM", STARCODER | {"tie_word_embeddings": False}),
    TinyModel("cohere2", "Cohere2ForCausalLM", COHERE),
    TinyModel("gpt-oss", "GptOssForCausalLM", SHAPE | GPT_OSS),
    TinyModel(
        "gpt-oss-yarn-odd",
        "GptOssForCausalLM",
        SHAPE | GPT_OSS | {"num_hidden_layers": 3, "rope_parameters": YARN | {"truncate": True}},
    ),
    *(TinyModel(*each) for each in (*GEMMAS, *DELTA_NETS, *LATENTS, *LLAMA_LIKE, *HYBRID, *PICTURES)),
)
