"""Gemma 1: Llama's layers with norms stored minus one, and a feed-forward network gated by GELU."""

from thriftbit.sources.architectures.architecture import Architecture
from thriftbit.sources.architectures.gemma_like import FINAL_NORM, FIRST_NORM, GELU_TANH, gemma_norm
from thriftbit.sources.architectures.kinds import every_layer
from thriftbit.sources.architectures.llama_like import ATTENTION, GATED_FFN, METADATA, RMS_NORM
from thriftbit.sources.architectures.rows import HEAD

ARCHITECTURE = Architecture(
    classes=("GemmaForCausalLM",),
    model_types=("gemma",),
    gguf_name="gemma",
    layers=every_layer(FIRST_NORM, ATTENTION, gemma_norm("post_attention_layernorm", "ffn_norm"), GATED_FFN),
    after=(FINAL_NORM, HEAD),
    metadata_keys=METADATA | RMS_NORM,
    # Published configurations call the activation "gelu" or leave it out; transformers computes the approximation.
    aliases={"hidden_activation": "hidden_act"},
    defaults={"tie_word_embeddings": True, "rms_norm_eps": 1e-6, "head_dim": 256},
    fixed={"hidden_act": (*GELU_TANH, "gelu"), "attention_bias": (False,)},
    untied=False,
)
