"""StarCoder 2: Llama's attention with biases everywhere, layer norms and a plain feed-forward network."""

from thriftbit.sources.architectures.architecture import Architecture
from thriftbit.sources.architectures.checks import heads_fill_width
from thriftbit.sources.architectures.kinds import Kind, every_layer
from thriftbit.sources.architectures.layer_cache import attention_cache
from thriftbit.sources.architectures.llama_like import GELU, LAYER_NORM, METADATA
from thriftbit.sources.architectures.rows import BLOCK, HEAD, LAYER, weight_and_bias

ATTENTION = Kind(
    (
        *weight_and_bias(LAYER + "input_layernorm", BLOCK + "attn_norm", "width"),
        *weight_and_bias(LAYER + "self_attn.q_proj", BLOCK + "attn_q", "query width"),
        *weight_and_bias(LAYER + "self_attn.k_proj", BLOCK + "attn_k", "key_value width"),
        *weight_and_bias(LAYER + "self_attn.v_proj", BLOCK + "attn_v", "key_value width"),
        *weight_and_bias(LAYER + "self_attn.o_proj", BLOCK + "attn_output", "width query"),
    ),
    attention_cache,
)
FFN = Kind(
    (
        *weight_and_bias(LAYER + "post_attention_layernorm", BLOCK + "ffn_norm", "width"),
        *weight_and_bias(LAYER + "mlp.c_fc", BLOCK + "ffn_up", "ffn width"),
        *weight_and_bias(LAYER + "mlp.c_proj", BLOCK + "ffn_down", "width ffn"),
    )
)

ARCHITECTURE = Architecture(
    classes=("Starcoder2ForCausalLM",),
    model_types=("starcoder2",),
    gguf_name="starcoder2",
    layers=every_layer(ATTENTION, FFN),
    after=(*weight_and_bias("model.norm", "output_norm", "width"), HEAD),
    metadata_keys=METADATA | LAYER_NORM,
    aliases={"norm_epsilon": "layer_norm_eps"},
    defaults={"tie_word_embeddings": True, "layer_norm_eps": 1e-5},
    fixed={"hidden_act": GELU, "use_bias": (True,)},
    checks=(heads_fill_width,),
)
