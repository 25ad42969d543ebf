"""Gemma 2: capped logits, and a sliding window in every other layer."""

from thriftbit.sources.architectures.architecture import Architecture
from thriftbit.sources.architectures.checks import full_attention_every, query_scale
from thriftbit.sources.architectures.gemma_like import AFTER_ATTENTION, FINAL_NORM, FIRST_NORM, GELU_TANH
from thriftbit.sources.architectures.kinds import every_nth, layer_of, sliding
from thriftbit.sources.architectures.llama_like import ATTENTION, METADATA, RMS_NORM
from thriftbit.sources.architectures.rows import HEAD

FULL = layer_of(FIRST_NORM, ATTENTION, AFTER_ATTENTION)

ARCHITECTURE = Architecture(
    classes=("Gemma2ForCausalLM",),
    model_types=("gemma2",),
    gguf_name="gemma2",
    layers=every_nth(2, FULL, others=sliding(FULL)),
    after=(FINAL_NORM, HEAD),
    metadata_keys=METADATA
    | RMS_NORM
    | {
        "attention.sliding_window": "sliding_window",
        "attn_logit_softcapping": "attn_logit_softcapping",
        "final_logit_softcapping": "final_logit_softcapping",
    },
    defaults={
        "tie_word_embeddings": True,
        "rms_norm_eps": 1e-6,
        "max_position_embeddings": 8192,
        "head_dim": 256,
        "query_pre_attn_scalar": 256,
        "sliding_window": 4096,
    },
    fixed={"hidden_activation": GELU_TANH, "use_bidirectional_attention": (False,)},
    checks=(query_scale(exception_layers=46), full_attention_every(2)),
    untied=False,
)
