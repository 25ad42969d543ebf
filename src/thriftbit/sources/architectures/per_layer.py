"""Per-layer embeddings of Gemma 3n and 4: a second table, with a short vector for every token and layer, and what mixes
the vector into a layer. The table may be as large as the rest of the model."""

from __future__ import annotations

from collections.abc import Mapping

from thriftbit.sources.architectures.dimensions import Dimensions, Length
from thriftbit.sources.architectures.kinds import Kind
from thriftbit.sources.architectures.rows import Row, layer, norm

SETTING = "has_per_layer_inputs"  # not in config.json: derived from the size of the vectors
KEY = "embedding_length_per_layer_input"


def has_per_layer_inputs(model: Dimensions) -> bool:
    return model.number(KEY, 0, least=0) > 0


LENGTHS: Mapping[str, Length] = {
    "per_layer": lambda model: model.number(KEY),
    "all_per_layer": lambda model: model.number(KEY) * model.layers,
}
EMBEDDING = Row(
    "model.embed_tokens_per_layer.weight", "per_layer_token_embd.weight", "vocabulary all_per_layer", when=SETTING
)
BEFORE = (
    EMBEDDING,
    Row("model.per_layer_model_projection.weight", "per_layer_model_proj.weight", "all_per_layer width", when=SETTING),
    Row("model.per_layer_projection_norm.weight", "per_layer_proj_norm.weight", "per_layer", when=SETTING),
)
MIXED_IN = Kind(
    (
        layer("per_layer_input_gate.weight", "inp_gate.weight", "per_layer width"),
        layer("per_layer_projection.weight", "proj.weight", "width per_layer"),
        norm("post_per_layer_input_norm", "post_norm"),
    )
)
