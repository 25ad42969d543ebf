"""StableLM 2: layer norms, a quarter of each head rotated, and in the larger model queries and keys normalised."""

from thriftbit.sources.architectures.architecture import Architecture
from thriftbit.sources.architectures.checks import heads_fill_width
from thriftbit.sources.architectures.kinds import Kind, every_layer
from thriftbit.sources.architectures.layer_cache import attention_cache
from thriftbit.sources.architectures.llama_like import GATED_FFN, LAYER_NORM, METADATA, SILU
from thriftbit.sources.architectures.rows import BLOCK, HEAD, LAYER, Row, layer, weight_and_bias
from thriftbit.sources.architectures.transforms import STACK


def norms_of_heads(source: str, target: str, count: str) -> Row:
    """Return the row of the norms of all heads, which transformers stores one by one."""
    name = f"{LAYER}self_attn.{source}.norms.{{number}}.weight"
    return Row(name, f"{BLOCK}{target}.weight", "head", STACK, when="qk_layernorm", count=count)


ATTENTION = Kind(
    (
        *weight_and_bias(LAYER + "input_layernorm", BLOCK + "attn_norm", "width"),
        layer("self_attn.q_proj.weight", "attn_q.weight", "query width"),
        layer("self_attn.k_proj.weight", "attn_k.weight", "key_value width"),
        layer("self_attn.v_proj.weight", "attn_v.weight", "key_value width"),
        layer("self_attn.q_proj.bias", "attn_q.bias", "query", when="use_qkv_bias"),
        layer("self_attn.k_proj.bias", "attn_k.bias", "key_value", when="use_qkv_bias"),
        layer("self_attn.v_proj.bias", "attn_v.bias", "key_value", when="use_qkv_bias"),
        layer("self_attn.o_proj.weight", "attn_output.weight", "width query"),
        norms_of_heads("q_layernorm", "attn_q_norm", "heads"),
        norms_of_heads("k_layernorm", "attn_k_norm", "key_value_heads"),
    ),
    attention_cache,
)
# A model with attention and feed-forward network in parallel has one norm for both.
FFN_NORM = Kind(
    (
        Row(LAYER + "post_attention_layernorm.weight", BLOCK + "ffn_norm.weight", "width", when="serial"),
        Row(LAYER + "post_attention_layernorm.bias", BLOCK + "ffn_norm.bias", "width", when="serial"),
    )
)


ARCHITECTURE = Architecture(
    classes=("StableLmForCausalLM",),
    model_types=("stablelm", "stablelm_epoch"),
    gguf_name="stablelm",
    layers=every_layer(ATTENTION, FFN_NORM, GATED_FFN),
    after=(*weight_and_bias("model.norm", "output_norm", "width"), HEAD),
    metadata_keys=METADATA | LAYER_NORM | {"use_parallel_residual": "use_parallel_residual"},
    aliases={"rope_pct": "partial_rotary_factor", "norm_eps": "layer_norm_eps"},
    defaults={
        "tie_word_embeddings": False,
        "layer_norm_eps": 1e-5,
        "partial_rotary_factor": 0.25,
        "use_parallel_residual": False,
        "use_qkv_bias": False,
        "qk_layernorm": False,
        "serial": lambda configuration: not configuration.flag("use_parallel_residual"),
    },
    fixed={"hidden_act": SILU},
    checks=(heads_fill_width,),
    copies_tied=True,
    rotates_parts=True,
)
