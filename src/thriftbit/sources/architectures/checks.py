"""What llama.cpp takes for granted about some families.

Each check reads one configuration and returns in words what llama.cpp would compute differently, or None. Without these
checks, the file would load and give wrong answers."""

from __future__ import annotations

from thriftbit.sources.architectures.architecture import Check
from thriftbit.sources.architectures.configuration import Configuration
from thriftbit.sources.architectures.dimensions import Dimensions

LARGEST_EPSILON = 1e-5  # that makes no difference to what is far from zero


def no_zero(*settings: str) -> Check:
    """llama.cpp takes these multipliers for missing where they are 0."""

    def check(configuration: Configuration, dimensions: Dimensions) -> str | None:
        zeros = [setting for setting in settings if configuration.number(setting) == 0]
        return f"{zeros[0]} is 0, which llama.cpp takes for a missing one." if zeros else None

    return check


def some_layer_is_recurrent(*kinds: str) -> Check:
    """Return the check for families whose layers are of several kinds, of which llama.cpp needs a recurrent one. kinds:
    those in `layer_types` that are recurrent."""

    def check(configuration: Configuration, dimensions: Dimensions) -> str | None:
        if any(kind in kinds for kind in configuration.get("layer_types") or ()):
            return None
        return f"layer_types has no {kinds[0]!r}, and llama.cpp does not run such a model as {dimensions.architecture}."

    return check


def heads_fill_width(configuration: Configuration, dimensions: Dimensions) -> str | None:
    if dimensions.query == dimensions.width:
        return None
    return (
        f"{dimensions.heads} heads of {dimensions.head} do not make up the width of {dimensions.width}, "
        "and llama.cpp takes that for granted here."
    )


def query_scale(exception_layers: int) -> Check:
    """Return a check of Gemma's attention scale. llama.cpp derives it from the size of a head, but in the largest
    model, which it recognises by the number of layers, from the width."""

    def check(configuration: Configuration, dimensions: Dimensions) -> str | None:
        largest = dimensions.layers == exception_layers
        expected = dimensions.width // dimensions.heads if largest else dimensions.head
        if configuration.number("query_pre_attn_scalar") == expected:
            return None
        return f"query_pre_attn_scalar is not {expected}, which llama.cpp computes with."

    return check


def full_attention_every(period: int) -> Check:
    """Return a check that every `period`-th layer has full attention, and all others a sliding window."""

    def check(configuration: Configuration, dimensions: Dimensions) -> str | None:
        if configuration.integer("sliding_window") < 1:
            return "sliding_window should be above zero."
        expected = [
            "full_attention" if (layer + 1) % period == 0 else "sliding_attention" for layer in range(dimensions.layers)
        ]
        stated = configuration.get("sliding_window_pattern", period)
        if configuration.get("layer_types", expected) == expected and stated == period:
            return None
        return f"layer_types is not full attention in every {period}th layer, which is what llama.cpp computes."

    return check
