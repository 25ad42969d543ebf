"""Nemotron and Minitron, dense: layer norms stored minus one, a feed-forward network without a gate."""

from thriftbit.sources.architectures.architecture import Architecture
from thriftbit.sources.architectures.checks import heads_fill_width
from thriftbit.sources.architectures.kinds import Kind, every_layer
from thriftbit.sources.architectures.llama_like import ATTENTION, FFN_WITHOUT_GATE, LAYER_NORM, METADATA
from thriftbit.sources.architectures.rows import BLOCK, HEAD, LAYER, Row
from thriftbit.sources.architectures.transforms import ADD_ONE


def layer_norm(source: str, target: str) -> Kind:
    """Return the rows of a layer norm. Its weight is stored minus one, its bias as it is."""
    weight = Row(f"{source}.weight", f"{target}.weight", "width", ADD_ONE)
    return Kind((weight, Row(f"{source}.bias", f"{target}.bias", "width")))


ARCHITECTURE = Architecture(
    classes=("NemotronForCausalLM",),
    model_types=("nemotron",),
    gguf_name="nemotron",
    layers=every_layer(
        layer_norm(LAYER + "input_layernorm", BLOCK + "attn_norm"),
        ATTENTION,
        layer_norm(LAYER + "post_attention_layernorm", BLOCK + "ffn_norm"),
        FFN_WITHOUT_GATE,
    ),
    after=(*layer_norm("model.norm", "output_norm").rows, HEAD),
    metadata_keys=METADATA
    | LAYER_NORM
    | {
        "attention.layer_norm_rms_epsilon": "layer_norm_eps",  # the converter writes it as well
        "rope.scaling.type": lambda configuration: "none",
    },
    aliases={"norm_eps": "layer_norm_eps"},
    defaults={"tie_word_embeddings": False, "layer_norm_eps": 1e-5, "partial_rotary_factor": 0.5},
    fixed={"hidden_act": ("relu2",), "attention_bias": (False,), "mlp_bias": (False,)},
    checks=(heads_fill_width,),
    rope_types=frozenset({"default"}),
    rotates_parts=True,
    copies_tied=True,
)
