"""OLMo 2: norms after attention and feed-forward network, and over whole projections of queries and keys."""

from thriftbit.sources.architectures.architecture import Architecture
from thriftbit.sources.architectures.checks import heads_fill_width
from thriftbit.sources.architectures.kinds import every_layer, layer_of
from thriftbit.sources.architectures.llama_like import ATTENTION, GATED_FFN, METADATA, RMS_NORM, SILU
from thriftbit.sources.architectures.rows import norm

LAYER = layer_of(
    ATTENTION,
    norm("self_attn.q_norm", "attn_q_norm", "query"),
    norm("self_attn.k_norm", "attn_k_norm", "key_value"),
    norm("post_attention_layernorm", "post_attention_norm"),
    GATED_FFN,
    norm("post_feedforward_layernorm", "post_ffw_norm"),
)

ARCHITECTURE = Architecture(
    classes=("Olmo2ForCausalLM",),
    model_types=("olmo2",),
    gguf_name="olmo2",
    layers=every_layer(LAYER),
    metadata_keys=METADATA | RMS_NORM,
    defaults={"tie_word_embeddings": False, "rms_norm_eps": 1e-5},
    fixed={"hidden_act": SILU},
    checks=(heads_fill_width,),
    copies_tied=True,
)
