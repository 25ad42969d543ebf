"""Parts of layers that many families share, because they descend from Llama's layout.

Rows are `layer(name at the source, name in the container, shape at the source)`; see `rows.py`. Families list parts in
the order in which the container is to hold their tensors.
"""

from __future__ import annotations

from thriftbit.sources.architectures.keys import Setting
from thriftbit.sources.architectures.kinds import Kind, layer_of
from thriftbit.sources.architectures.layer_cache import attention_cache
from thriftbit.sources.architectures.rows import layer, norm
from thriftbit.sources.architectures.transforms import INTERLEAVE_KEY, INTERLEAVE_QUERY, split

SILU = ("silu", "swish")
GELU_TANH = ("gelu_pytorch_tanh", "gelu_new", "gelu_fast")
GELU = (*GELU_TANH, "gelu")  # llama.cpp approximates the exact GELU by the same formula, at most 5e-4 off

# GGUF key -> configuration key, for keys that all these families have.
METADATA: dict[str, Setting] = {
    "vocab_size": "vocab_size",
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "block_count": "num_hidden_layers",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "attention.value_length": "head_dim",
}
RMS_NORM: dict[str, Setting] = {"attention.layer_norm_rms_epsilon": "rms_norm_eps"}
LAYER_NORM: dict[str, Setting] = {"attention.layer_norm_epsilon": "layer_norm_eps"}

ATTENTION_NORM = norm("input_layernorm", "attn_norm")
FFN_NORM = norm("post_attention_layernorm", "ffn_norm")

VALUE = layer("self_attn.v_proj.weight", "attn_v.weight", "key_value width")
ATTENTION_OUTPUT = layer("self_attn.o_proj.weight", "attn_output.weight", "width query")

ATTENTION = Kind(
    (
        layer("self_attn.q_proj.weight", "attn_q.weight", "query width"),
        layer("self_attn.k_proj.weight", "attn_k.weight", "key_value width"),
        VALUE,
        ATTENTION_OUTPUT,
    ),
    attention_cache,
)
INTERLEAVED_ATTENTION = Kind(
    (
        layer("self_attn.q_proj.weight", "attn_q.weight", "query width", INTERLEAVE_QUERY),
        layer("self_attn.k_proj.weight", "attn_k.weight", "key_value width", INTERLEAVE_KEY),
        VALUE,
        ATTENTION_OUTPUT,
    ),
    attention_cache,
)
INTERLEAVED_ATTENTION_BIASES = Kind(
    (
        layer("self_attn.q_proj.bias", "attn_q.bias", "query", INTERLEAVE_QUERY, when="attention_bias"),
        layer("self_attn.k_proj.bias", "attn_k.bias", "key_value", INTERLEAVE_KEY, when="attention_bias"),
        layer("self_attn.v_proj.bias", "attn_v.bias", "key_value", when="attention_bias"),
        layer("self_attn.o_proj.bias", "attn_output.bias", "width", when="attention_bias"),
    )
)
QUERY_KEY_VALUE_BIASES = Kind(
    (
        layer("self_attn.q_proj.bias", "attn_q.bias", "query"),
        layer("self_attn.k_proj.bias", "attn_k.bias", "key_value"),
        layer("self_attn.v_proj.bias", "attn_v.bias", "key_value"),
    )
)
# The same biases, in families with a setting that says whether a model has them.
OPTIONAL_QUERY_KEY_VALUE_BIASES = Kind(
    (
        layer("self_attn.q_proj.bias", "attn_q.bias", "query", when="attention_bias"),
        layer("self_attn.k_proj.bias", "attn_k.bias", "key_value", when="attention_bias"),
        layer("self_attn.v_proj.bias", "attn_v.bias", "key_value", when="attention_bias"),
    )
)
QUERY_KEY_NORMS = Kind(
    (
        norm("self_attn.q_norm", "attn_q_norm", "head"),
        norm("self_attn.k_norm", "attn_k_norm", "head"),
    )
)
GATED_FFN = Kind(
    (
        layer("mlp.gate_proj.weight", "ffn_gate.weight", "ffn width"),
        layer("mlp.up_proj.weight", "ffn_up.weight", "ffn width"),
        layer("mlp.down_proj.weight", "ffn_down.weight", "width ffn"),
    )
)
FFN_WITHOUT_GATE = Kind(
    (
        layer("mlp.up_proj.weight", "ffn_up.weight", "ffn width"),
        layer("mlp.down_proj.weight", "ffn_down.weight", "width ffn"),
    )
)
GATED_FFN_BIASES = Kind(
    (
        layer("mlp.gate_proj.bias", "ffn_gate.bias", "ffn", when="mlp_bias"),
        layer("mlp.up_proj.bias", "ffn_up.bias", "ffn", when="mlp_bias"),
        layer("mlp.down_proj.bias", "ffn_down.bias", "width", when="mlp_bias"),
    )
)

# Llama's own layers, with the biases that some descendants have.
LLAMA_LAYERS = layer_of(
    ATTENTION_NORM,
    INTERLEAVED_ATTENTION,
    INTERLEAVED_ATTENTION_BIASES,
    FFN_NORM,
    GATED_FFN,
    GATED_FFN_BIASES,
)

# transformers holds all experts of a layer in one tensor; most checkpoints have a tensor for each expert.
GATE_UP_EXPERTS = split("expert_ffn expert_ffn", "experts", parts=("experts expert_ffn width",) * 2)
GATES_AND_UPS = ("ffn_gate_exps.weight", "ffn_up_exps.weight")


def routed_experts(
    module: str = "mlp", gate: str = "gate_proj", up: str = "up_proj", down: str = "down_proj", source: str = "mlp"
) -> Kind:
    """Return the experts of a layer. source: transformers' module. module, gate, up, down: the names in checkpoints
    that store every expert apart."""
    one_by_one = f"{module}.experts.{{expert}}."
    joined = () if module == source else ((f"{module}.experts.gate_up_proj",),)
    joined_down = () if module == source else ((f"{module}.experts.down_proj",),)
    gate_up = (one_by_one + f"{gate}.weight", one_by_one + f"{up}.weight")
    return Kind(
        (
            layer(
                f"{source}.experts.gate_up_proj",
                GATES_AND_UPS,
                "experts expert_gate_up width",
                GATE_UP_EXPERTS,
                spellings=(gate_up, *joined),
            ),
            layer(
                f"{source}.experts.down_proj",
                "ffn_down_exps.weight",
                "experts width expert_ffn",
                spellings=((one_by_one + f"{down}.weight",), *joined_down),
            ),
        )
    )


SIGMOID = 2  # llama.cpp's number of the function that rates experts
ROUTER = layer("mlp.gate.weight", "ffn_gate_inp.weight", "experts width")
EXPERTS_METADATA: dict[str, Setting] = {"expert_count": "num_local_experts", "expert_used_count": "num_experts_per_tok"}


def shared_experts(source: str = "mlp.shared_experts") -> Kind:
    """Return the experts that every token uses. The family's word `shared_ffn` is their width."""
    return Kind(
        (
            layer(f"{source}.gate_proj.weight", "ffn_gate_shexp.weight", "shared_ffn width"),
            layer(f"{source}.up_proj.weight", "ffn_up_shexp.weight", "shared_ffn width"),
            layer(f"{source}.down_proj.weight", "ffn_down_shexp.weight", "width shared_ffn"),
        )
    )
