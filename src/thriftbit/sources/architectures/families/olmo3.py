"""OLMo 3: OLMo 2's layers, with a sliding window in three of four."""

from thriftbit.sources.architectures.architecture import Architecture
from thriftbit.sources.architectures.checks import full_attention_every, heads_fill_width
from thriftbit.sources.architectures.configuration import Configuration
from thriftbit.sources.architectures.dimensions import Dimensions
from thriftbit.sources.architectures.families.olmo2 import LAYER
from thriftbit.sources.architectures.keys import kinds_of_layers
from thriftbit.sources.architectures.kinds import every_nth, sliding
from thriftbit.sources.architectures.llama_like import METADATA, RMS_NORM, SILU


def one_base(configuration: Configuration, model: Dimensions) -> str | None:
    if not model.has("rope.freq_base_swa"):
        return None
    bases = [model.metadata[f"{model.architecture}.rope.freq_base{kind}"] for kind in ("", "_swa")]
    return None if bases[0] == bases[1] else "rope_theta of sliding layers is another one; llama.cpp takes one for all."


ARCHITECTURE = Architecture(
    classes=("Olmo3ForCausalLM",),
    model_types=("olmo3",),
    gguf_name="olmo2",
    layers=every_nth(4, LAYER, others=sliding(LAYER)),
    metadata_keys=METADATA
    | RMS_NORM
    | {
        "attention.sliding_window": "sliding_window",
        "attention.sliding_window_pattern": kinds_of_layers("layer_types", is_kind="sliding_attention"),
    },
    restored=lambda stated: {
        "layer_types": [
            "sliding_attention" if slides else "full_attention" for slides in stated["attention.sliding_window_pattern"]
        ]
    },
    defaults={
        "tie_word_embeddings": False,
        "rms_norm_eps": 1e-5,
        "layer_types": lambda configuration: [
            "full_attention" if layer % 4 == 3 else "sliding_attention"
            for layer in range(configuration.integer("num_hidden_layers"))
        ],
    },
    fixed={"hidden_act": SILU, "attention_bias": (False,)},
    checks=(heads_fill_width, full_attention_every(4), one_base),
    copies_tied=True,
    recognised=lambda model: model.has("attention.sliding_window"),
)
