"""GPT-NeoX, the architecture of Pythia: query, key and value fused head by head, a quarter of each head rotated."""

from thriftbit.sources.architectures.architecture import Architecture
from thriftbit.sources.architectures.checks import heads_fill_width
from thriftbit.sources.architectures.kinds import Kind, every_layer
from thriftbit.sources.architectures.layer_cache import attention_cache
from thriftbit.sources.architectures.llama_like import GELU_TANH, LAYER_NORM, METADATA
from thriftbit.sources.architectures.rows import BLOCK, EMBEDDING, OUTPUT, Row, weight_and_bias
from thriftbit.sources.architectures.transforms import GROUP_QKV

LAYER = "gpt_neox.layers.{layer}."
ATTENTION = Kind(
    (
        *weight_and_bias(LAYER + "input_layernorm", BLOCK + "attn_norm", "width"),
        *weight_and_bias(LAYER + "attention.query_key_value", BLOCK + "attn_qkv", "qkv width", GROUP_QKV),
        *weight_and_bias(LAYER + "attention.dense", BLOCK + "attn_output", "width query"),
    ),
    attention_cache,
)
FFN = Kind(
    (
        *weight_and_bias(LAYER + "post_attention_layernorm", BLOCK + "ffn_norm", "width"),
        *weight_and_bias(LAYER + "mlp.dense_h_to_4h", BLOCK + "ffn_up", "ffn width"),
        *weight_and_bias(LAYER + "mlp.dense_4h_to_h", BLOCK + "ffn_down", "width ffn"),
    )
)

ARCHITECTURE = Architecture(
    classes=("GPTNeoXForCausalLM",),
    model_types=("gpt_neox",),
    gguf_name="gptneox",
    before=(Row("gpt_neox.embed_in.weight", EMBEDDING, "vocabulary width"),),
    layers=every_layer(ATTENTION, FFN),
    after=(
        *weight_and_bias("gpt_neox.final_layer_norm", "output_norm", "width"),
        Row("lm_head.weight", OUTPUT, "vocabulary width"),
    ),
    metadata_keys={key: name for key, name in METADATA.items() if key != "attention.head_count_kv"}
    | LAYER_NORM
    | {"use_parallel_residual": "use_parallel_residual"},
    aliases={"rotary_pct": "partial_rotary_factor", "rotary_emb_base": "rope_theta"},
    defaults={
        "tie_word_embeddings": False,
        "layer_norm_eps": 1e-5,
        "partial_rotary_factor": 0.25,
        "use_parallel_residual": True,
    },
    fixed={"hidden_act": ("gelu", *GELU_TANH), "attention_bias": (True,)},
    checks=(heads_fill_width,),
    copies_tied=True,
    prefixes={"embed_out.": "lm_head."},
    ignorable=(r"\.attention\.bias$",),
    rotates_parts=True,
)
