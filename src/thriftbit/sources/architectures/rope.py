"""Rotary position embeddings: from a configuration to GGUF keys and factor tensors.

Two generations of configurations are read: `rope_parameters`, flat or by kind of attention layer, and the older
`rope_theta` with `rope_scaling`. What llama.cpp computes by itself (linear, YaRN) becomes metadata; what it cannot
(Llama 3's wavelength bands, LongRoPE's tables) becomes a tensor of divisors, one for each frequency.

Sources: RoPE, arXiv 2104.09864; YaRN, arXiv 2309.00071; LongRoPE, arXiv 2402.13753; Llama 3's rule is the one
published with its reference code. Dynamic NTK scaling changes nothing within the trained context, and llama.cpp does
not support it beyond, so it is treated as no scaling."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from thriftbit.containers.gguf_values import MetadataValue
from thriftbit.errors import ThriftbitError
from thriftbit.sources.architectures.configuration import LARGEST_COUNT, Configuration, finite, positive
from thriftbit.sources.tensor import FloatArray

PLAIN = frozenset(
    {"default", "dynamic", "linear", "yarn"}
)  # types that every llama.cpp model with rotary embeddings takes
LONGROPE = frozenset({"longrope", "su"})  # two names of one method
# YaRN whose first and last blended frequency are not rounded ("truncate": false). llama.cpp rounds them, which changes
# a few frequencies a little. A family that is published this way takes it, and says so in a note.
PROPORTIONAL = "proportional"  # pairs over the whole head, of which the last are not rotated
UNROUNDED = "yarn, not rounded"
WITH_FACTORS = PLAIN | LONGROPE | {"llama3"}

YARN_BOUNDS = {"rope.scaling.yarn_beta_fast": "beta_fast", "rope.scaling.yarn_beta_slow": "beta_slow"}
STANDING_STILL = 1e30  # the divisor of a frequency that should be zero
FREQUENCIES = "rope_freqs.weight"
LONG_FACTORS = "rope_factors_long.weight"
SHORT_FACTORS = "rope_factors_short.weight"
FACTOR_TENSORS = frozenset({FREQUENCIES, LONG_FACTORS, SHORT_FACTORS})


class Rope:
    """The rotary settings of one model.

    base: of the frequencies. sliding_base: the base of sliding-window layers, if they have their own. kind: of scaling;
    ThriftbitError is raised if it is not in `supported`. rotary: rotated entries of each head."""

    def __init__(self, config: Configuration, supported: frozenset[str]) -> None:
        parameters, sliding = _parameters(config)
        self._parameters, self._supported = parameters, supported
        self._context = config.integer("max_position_embeddings")
        self.kind = str(parameters.get("rope_type", parameters.get("type", "default")))
        if self.kind not in supported:
            raise ThriftbitError(
                f"config.json: rope_type {self.kind!r} is not one that llama.cpp computes for this architecture "
                f"({', '.join(sorted(supported - {UNROUNDED}))})."
            )
        if sliding.get("rope_type", "default") != "default":
            raise ThriftbitError(
                "config.json: rope scaling of sliding-window layers is not something llama.cpp computes."
            )
        self.base = positive(parameters.get("rope_theta", config.get("rope_theta", 10000.0)), "rope_theta")
        self.sliding_base = positive(sliding["rope_theta"], "rope_theta") if "rope_theta" in sliding else None
        fraction = self._number("partial_rotary_factor", config.get("partial_rotary_factor", 1.0))
        self._turning = fraction
        head = config.integer("global_head_dim" if config.get("global_head_dim") else "head_dim")
        self.rotary = head if self.kind == PROPORTIONAL else int(head * fraction)
        if self.rotary < 2 or self.rotary % 2 or fraction > 1:
            raise ThriftbitError(
                f"config.json: {self.rotary} rotated entries of each head; it should be an even number."
            )
        original = config.get("original_max_position_embeddings")
        self._original_context = finite(
            original or parameters.get("original_max_position_embeddings") or self._context,
            "original_max_position_embeddings",
        )
        if not 2 <= self._original_context <= LARGEST_COUNT:
            raise ThriftbitError("config.json: original_max_position_embeddings is not a length of text.")

    def metadata(self) -> dict[str, MetadataValue]:
        """Return GGUF keys without the architecture's prefix."""
        keys: dict[str, MetadataValue] = {
            "rope.dimension_count": np.uint32(self.rotary),
            "rope.freq_base": np.float32(self.base),
        }
        if self.sliding_base is not None:
            keys["rope.freq_base_swa"] = np.float32(self.sliding_base)
        if (sections := self._parameters.get("mrope_section")) is not None:
            keys["rope.dimension_sections"] = self._sections(sections)
        if self.kind == "linear":
            keys["rope.scaling.type"] = "linear"
            keys["rope.scaling.factor"] = np.float32(self._factor())
        if self.kind == "yarn":
            keys |= self._yarn()
        if self.kind in LONGROPE:
            keys["rope.scaling.type"] = "longrope"
            keys["rope.scaling.original_context_length"] = np.uint32(self._original_context)
            keys["rope.scaling.attn_factor"] = np.float32(self._longrope_magnitude())
        return keys

    def factors(self) -> dict[str, FloatArray]:
        """Return tensors (rotary / 2,) of divisors of the frequencies, by GGUF name; none for most models."""
        if self.kind == PROPORTIONAL:
            turning = int(self._turning * self.rotary / 2)
            standing = [STANDING_STILL] * (self.rotary // 2 - turning)
            return {FREQUENCIES: np.array([1.0] * turning + standing, np.float32)}
        if self.kind == "llama3":
            return {FREQUENCIES: self._llama3_factors()}
        if self.kind in LONGROPE:
            return {LONG_FACTORS: self._listed("long_factor"), SHORT_FACTORS: self._listed("short_factor")}
        return {}

    def _sections(self, sections: Any) -> MetadataValue:
        """Return the numbers of frequencies that follow time, height and width, and 0 for a fourth kind."""
        if not isinstance(sections, list) or len(sections) > 4 or not all(isinstance(n, int) for n in sections):
            raise ThriftbitError("config.json: mrope_section should be a list of three whole numbers.")
        return np.array([*sections, 0, 0, 0, 0][:4], np.int32)

    def _number(self, key: str, default: float | None = None) -> float:
        return finite(self._parameters.get(key, default), key)

    def _factor(self) -> float:
        given = self._parameters.get("factor")
        return self._context / self._original_context if given is None else positive(given, "factor")

    def _yarn(self) -> dict[str, MetadataValue]:
        if self._parameters.get("truncate", True) is not True and UNROUNDED not in self._supported:
            raise ThriftbitError("config.json: YaRN without truncation is not something llama.cpp computes.")
        if self._number("beta_fast", 32.0) != 32 or self._number("beta_slow", 1.0) != 1:
            raise ThriftbitError("config.json: llama.cpp computes YaRN with beta_fast 32 and beta_slow 1 only.")
        factor = self._factor()
        keys: dict[str, MetadataValue] = {
            "rope.scaling.type": "yarn",
            "rope.scaling.factor": np.float32(factor),
            "rope.scaling.original_context_length": np.uint32(self._original_context),
        }
        for key, name in YARN_BOUNDS.items():
            if name in self._parameters:
                keys[key] = np.float32(positive(self._parameters[name], name))
        # llama.cpp always applies the paper's magnitude. If a model has another one, the file gets the ratio of the
        # two.
        ratio = self._yarn_magnitude(factor) / yarn_scale(factor, 1.0)
        if not math.isclose(ratio, 1.0):
            if self.sliding_base is not None:
                raise ThriftbitError(
                    "config.json: YaRN has an attention_factor of its own; llama.cpp would use it in layers with a "
                    "sliding window too."
                )
            keys["rope.scaling.attn_factor"] = np.float32(ratio)
        return keys

    def _yarn_magnitude(self, factor: float) -> float:
        given = self._parameters.get("attention_factor")
        if given is not None:
            return positive(given, "attention_factor")
        mscale, mscale_all = self._parameters.get("mscale"), self._parameters.get("mscale_all_dim")
        if mscale and mscale_all:
            wanted = yarn_scale(factor, positive(mscale, "mscale"))
            return wanted / yarn_scale(factor, positive(mscale_all, "mscale_all_dim"))
        return yarn_scale(factor, 1.0)

    def _longrope_magnitude(self) -> float:
        given = self._parameters.get("attention_factor")
        if given is not None:
            return positive(given, "attention_factor")
        factor = self._factor()
        return math.sqrt(1 + math.log(factor) / math.log(self._original_context)) if factor > 1 else 1.0

    def _listed(self, key: str) -> FloatArray:
        values = self._parameters.get(key)
        if not isinstance(values, list) or len(values) != self.rotary // 2:
            raise ThriftbitError(
                f"config.json: {key} should list {self.rotary // 2} numbers, half the rotated entries of a head."
            )
        return np.array([finite(value, key) for value in values], dtype=np.float32)

    def _llama3_factors(self) -> FloatArray:
        """Return Llama 3's divisors: 1 for high frequencies, `factor` for low ones, and a blend between two
        wavelengths."""
        factor = self._factor()
        low, high = self._number("low_freq_factor", 1.0), self._number("high_freq_factor", 4.0)
        if not 0 < low <= high:
            raise ThriftbitError("config.json: low_freq_factor should lie between zero and high_freq_factor.")
        frequencies = self.base ** -(np.arange(0, self.rotary, 2, dtype=np.float64) / self.rotary)
        rotations = self._original_context * frequencies / (2 * math.pi)
        kept = np.clip((rotations - low) / (high - low), 0, 1) if low < high else np.where(rotations > low, 1.0, 0.0)
        return (1 / (kept + (1 - kept) / factor)).astype(np.float32)


def yarn_settings(config: Configuration) -> Mapping[str, Any]:
    """Return the rotary settings of a model that uses YaRN; {} for any other model."""
    parameters, _ = _parameters(config)
    return parameters if parameters.get("rope_type", parameters.get("type")) == "yarn" else {}


def yarn_scale(factor: float, mscale: float) -> float:
    return 0.1 * mscale * math.log(factor) + 1 if factor > 1 else 1.0


def _parameters(config: Configuration) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Return (settings of full-attention layers, settings of sliding-window layers where they have their own)."""
    given = _object(config.get("rope_parameters") or config.get("rope_scaling"))
    if "full_attention" in given:
        return _object(given["full_attention"]), _object(given.get("sliding_attention"))
    local = config.get("rope_local_base_freq")
    return given, {} if local is None else {"rope_theta": local}


def _object(value: Any) -> Mapping[str, Any]:
    """Return the value without its nulls; {} for null."""
    if not isinstance(value, Mapping | None):
        raise ThriftbitError("config.json: rope_parameters should be an object, and its parts as well.")
    return {key: entry for key, entry in (value or {}).items() if entry is not None}
