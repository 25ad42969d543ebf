"""One row of a family's table: some weights, their names in transformers' code and their names in GGUF.

Names hold {layer} where every layer has its own, {ahead} for the number of a layer among those that guess the tokens
after the next (0 for the first), and {expert} or {number} where several tensors are counted.
"""

from __future__ import annotations

from dataclasses import dataclass

from thriftbit.sources.architectures.transforms import IDENTITY, TRANSPOSE, Transform

EMBEDDING = "token_embd.weight"
OUTPUT = "output.weight"
LAYER = "model.layers.{layer}."
BLOCK = "blk.{layer}."


@dataclass(frozen=True)
class Row:
    """source: the parameter's name in transformers' code; with {number}, as many tensors as `count` says.
    target: the container's tensor, or tensors in a tuple where one source becomes several.
    shape: of each source tensor, in words of `Dimensions`.
    transform: from the sources to the targets, and back.
    when: a setting in the configuration without which the row does not exist ("" for always).
    spellings: other ways in which checkpoints store the source. Each is a tuple of names of tensors that give the
    source when they are concatenated. A name with {expert} stands for the tensors of all experts, expert by expert.
    count: the word of `Dimensions` that says how many sources there are.
    optional: whether some checkpoints lack the source, without a setting that tells.
    turned: whether some checkpoints store the last two axes in the opposite order; the shape tells.
    multiplied: a setting that llama.cpp has no key for, one number or one for every row of the target. The container's
    weights are multiplied by it ("" for none). `Architecture.multipliers` gives its value afterwards."""

    source: str
    target: str | tuple[str, ...]
    shape: str
    transform: Transform = IDENTITY
    when: str = ""
    spellings: tuple[tuple[str, ...], ...] = ()
    count: str = ""
    optional: bool = False
    turned: bool = False
    multiplied: str = ""

    @property
    def targets(self) -> tuple[str, ...]:
        return (self.target,) if isinstance(self.target, str) else self.target


def layer(
    source: str,
    target: str | tuple[str, ...],
    shape: str,
    transform: Transform = IDENTITY,
    when: str = "",
    spellings: tuple[tuple[str, ...], ...] = (),
    optional: bool = False,
    turned: bool = False,
    multiplied: str = "",
) -> Row:
    """Return a row of a layer. Names are given without the layer's prefix."""
    targets = BLOCK + target if isinstance(target, str) else tuple(BLOCK + each for each in target)
    spelled = tuple(tuple(LAYER + name for name in names) for names in spellings)
    return Row(
        LAYER + source,
        targets,
        shape,
        transform,
        when,
        spelled,
        optional=optional,
        turned=turned,
        multiplied=multiplied,
    )


def norm(source: str, target: str, shape: str = "width", transform: Transform = IDENTITY, when: str = "") -> Row:
    return layer(f"{source}.weight", f"{target}.weight", shape, transform, when)


def weight_and_bias(source: str, target: str, shape: str, transform: Transform = IDENTITY) -> tuple[Row, Row]:
    """Return the rows of a matrix or norm and of its bias. A transform reorders both."""
    outputs = shape.split()[-1] if transform is TRANSPOSE else shape.split()[0]
    bias_transform = IDENTITY if transform is TRANSPOSE else transform
    return (
        Row(f"{source}.weight", f"{target}.weight", shape, transform),
        Row(f"{source}.bias", f"{target}.bias", outputs, bias_transform),
    )


TOKEN_EMBEDDING = Row("model.embed_tokens.weight", EMBEDDING, "vocabulary width")
FINAL_NORM = Row("model.norm.weight", "output_norm.weight", "width")
HEAD = Row("lm_head.weight", OUTPUT, "vocabulary width")
