"""Command R7B and Command A: attention and feed-forward in parallel, a sliding window in three layers of four."""

from thriftbit.sources.architectures.architecture import Architecture
from thriftbit.sources.architectures.checks import full_attention_every, heads_fill_width
from thriftbit.sources.architectures.kinds import every_nth, layer_of, sliding
from thriftbit.sources.architectures.llama_like import (
    ATTENTION,
    ATTENTION_NORM,
    GATED_FFN,
    LAYER_NORM,
    METADATA,
    SILU,
)

FULL = layer_of(ATTENTION_NORM, ATTENTION, GATED_FFN)

ARCHITECTURE = Architecture(
    classes=("Cohere2ForCausalLM",),
    model_types=("cohere2",),
    gguf_name="cohere2",
    layers=every_nth(4, FULL, others=sliding(FULL)),
    metadata_keys=METADATA | LAYER_NORM | {"attention.sliding_window": "sliding_window", "logit_scale": "logit_scale"},
    defaults={
        "tie_word_embeddings": True,
        "layer_norm_eps": 1e-5,
        "logit_scale": 0.0625,
        "sliding_window": 4096,
        "rope_theta": 10000.0,
    },
    fixed={"hidden_act": SILU, "attention_bias": (False,), "use_embedding_sharing": (True,)},
    checks=(heads_fill_width, full_attention_every(4)),
    rope_types=frozenset({"default"}),
    untied=False,
)
