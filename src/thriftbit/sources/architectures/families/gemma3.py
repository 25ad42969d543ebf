"""Gemma 3: normalised queries and keys, a sliding window with its own rotary base in five layers of six.

Only the text part of multimodal models is taken. llama.cpp has the image tower in a file of its own."""

from thriftbit.sources.architectures.architecture import Architecture
from thriftbit.sources.architectures.checks import full_attention_every, query_scale
from thriftbit.sources.architectures.gemma_like import (
    AFTER_ATTENTION,
    FINAL_NORM,
    FIRST_NORM,
    GELU_TANH,
    QUERY_KEY_NORMS,
)
from thriftbit.sources.architectures.kinds import every_nth, layer_of, sliding
from thriftbit.sources.architectures.llama_like import ATTENTION, METADATA, RMS_NORM
from thriftbit.sources.architectures.rows import HEAD

FULL = layer_of(FIRST_NORM, ATTENTION, QUERY_KEY_NORMS, AFTER_ATTENTION)

ARCHITECTURE = Architecture(
    classes=("Gemma3ForCausalLM", "Gemma3ForConditionalGeneration"),
    model_types=("gemma3_text", "gemma3"),
    gguf_name="gemma3",
    layers=every_nth(6, FULL, others=sliding(FULL)),
    after=(FINAL_NORM, HEAD),
    metadata_keys=METADATA | RMS_NORM | {"attention.sliding_window": "sliding_window"},
    optional_metadata_keys={"final_logit_softcapping": "final_logit_softcapping"},
    # Values that the published configurations of multimodal models omit.
    defaults={
        "tie_word_embeddings": True,
        "vocab_size": 262208,
        "max_position_embeddings": 131072,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "rms_norm_eps": 1e-6,
        "query_pre_attn_scalar": 256,
        "rope_theta": 1e6,
        "rope_local_base_freq": 1e4,
        "sliding_window": 4096,
    },
    fixed={
        "hidden_activation": GELU_TANH,
        "use_bidirectional_attention": (False,),
    },
    checks=(query_scale(exception_layers=62), full_attention_every(6)),
)
