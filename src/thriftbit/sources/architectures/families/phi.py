"""Phi-1.5 and Phi-2: attention and feed-forward network in parallel after one layer norm, biases everywhere."""

from thriftbit.sources.architectures.architecture import Architecture
from thriftbit.sources.architectures.checks import heads_fill_width
from thriftbit.sources.architectures.kinds import Kind, every_layer
from thriftbit.sources.architectures.layer_cache import attention_cache
from thriftbit.sources.architectures.llama_like import GELU, LAYER_NORM, METADATA
from thriftbit.sources.architectures.rows import BLOCK, HEAD, LAYER, Row, weight_and_bias

PARALLEL = Kind(
    (
        *weight_and_bias(LAYER + "input_layernorm", BLOCK + "attn_norm", "width"),
        *weight_and_bias(LAYER + "self_attn.q_proj", BLOCK + "attn_q", "query width"),
        *weight_and_bias(LAYER + "self_attn.k_proj", BLOCK + "attn_k", "key_value width"),
        *weight_and_bias(LAYER + "self_attn.v_proj", BLOCK + "attn_v", "key_value width"),
        *weight_and_bias(LAYER + "self_attn.dense", BLOCK + "attn_output", "width query"),
        *weight_and_bias(LAYER + "mlp.fc1", BLOCK + "ffn_up", "ffn width"),
        *weight_and_bias(LAYER + "mlp.fc2", BLOCK + "ffn_down", "width ffn"),
    ),
    attention_cache,
)

ARCHITECTURE = Architecture(
    classes=("PhiForCausalLM",),
    model_types=("phi",),
    gguf_name="phi2",
    layers=every_layer(PARALLEL),
    after=(
        *weight_and_bias("model.final_layernorm", "output_norm", "width"),
        HEAD,
        Row("lm_head.bias", "output.bias", "vocabulary"),
    ),
    metadata_keys=METADATA | LAYER_NORM,
    defaults={"tie_word_embeddings": False, "layer_norm_eps": 1e-5, "partial_rotary_factor": 0.5},
    fixed={"hidden_act": GELU, "qk_layernorm": (False,)},
    checks=(heads_fill_width,),
    copies_tied=True,
    rotates_parts=True,
)
