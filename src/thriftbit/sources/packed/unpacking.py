"""Which stored tensors belong together, and which file of this room unpacks them.

A packed weight is found by its largest tensor, its core: by the end of the core's name and its dtype. Where two schemes
share these, the tensors beside the core or the configuration decide. A scale without a weight, or a weight without its
scale, is an error that names it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from thriftbit.errors import ThriftbitError, enumeration, shown
from thriftbit.sources.packed import awq, bitnet, bitsandbytes, compressed_tensors, gptq, mlx, mxfp4, nvfp4, scaled
from thriftbit.sources.packed.module import Module
from thriftbit.sources.packed.settings import METHODS, Packing
from thriftbit.sources.safetensors_file import READABLE
from thriftbit.sources.tensor import Tensor
from thriftbit.sources.views import part

_FP8 = ("F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ")
_SCALES = ("weight_scale_inv", "weight_scale", "qscale_weight", "scale_inv", "scale")


@dataclass(frozen=True)
class Scheme:
    """One way of packing.

    core, dtypes: the end of the core's name, after the module's name, and how the core is stored. core "" stands for
    the module's own name, for parameters that are no ".weight".
    needs, takes: part -> the ends of the names that it may have; the first that exists is taken. A missing part of
    `needs` is an error. beside: parts that tell this scheme from others with the same core. methods: each quant_method
    that does the same.
    result: the end of the unpacked weight's name."""

    name: str
    core: str
    dtypes: tuple[str, ...]
    unpack: Callable[[Module], Tensor]
    needs: Mapping[str, tuple[str, ...]]
    takes: Mapping[str, tuple[str, ...]]
    part: str
    beside: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    result: str = ".weight"


def _named(*parts: str) -> dict[str, tuple[str, ...]]:
    return {part: (f".{part}",) for part in parts}


_ANY_SCALE = {"scale": tuple(f".{scale}" for scale in _SCALES)}
_STATE: dict[str, tuple[str, ...]] = {
    "quant_state": (".weight.quant_state.bitsandbytes__nf4", ".weight.quant_state.bitsandbytes__fp4")
}
_TABLES: dict[str, tuple[str, ...]] = {part: (f".weight.{part}",) for part in ("absmax", "quant_map")}
_NESTED: dict[str, tuple[str, ...]] = {part: (f".weight.{part}",) for part in ("nested_absmax", "nested_quant_map")}
_INTEGERS = ("I32", "U32")

# The first that fits decides.
SCHEMES = (
    Scheme("AWQ", ".qweight", _INTEGERS, awq.unpack, _named("scales"), _named("qzeros"), "qweight", methods=("awq",)),
    Scheme("GPTQ", ".qweight", _INTEGERS, gptq.unpack, _named("scales", "qzeros"), _named("g_idx"), "qweight"),
    Scheme(
        "NVFP4", ".weight_packed", ("U8",), nvfp4.unpack_compressed, _named("weight_scale"),
        _named("weight_global_scale"), "weight_packed", beside=("weight_global_scale",),
    ),
    Scheme(
        "MXFP4", ".weight_packed", ("U8",), mxfp4.unpack_linear, _named("weight_scale"), {}, "weight_packed",
    ),
    Scheme(
        "compressed-tensors", ".weight_packed", ("I32",), compressed_tensors.unpack,
        _named("weight_scale", "weight_shape"), _named("weight_zero_point", "weight_g_idx"), "weight_packed",
    ),
    Scheme(
        "MXFP4", "_blocks", ("U8",), mxfp4.unpack_experts, {"scales": ("_scales",)}, {}, "blocks", result="",
    ),
    Scheme("MLX", ".weight", ("U32",), mlx.unpack, _named("scales", "biases"), {}, "weight"),
    Scheme(
        "bitsandbytes INT8", ".weight", ("I8",), bitsandbytes.unpack_8bit, _named("SCB"), _named("weight_format"),
        "weight", beside=("SCB",), methods=("bitsandbytes",),
    ),
    Scheme(
        "MXFP4", ".weight", ("I8",), mxfp4.unpack_beside_fp8, _ANY_SCALE, {}, "weight", methods=("fp8",)
    ),
    Scheme("INT8", ".weight", ("I8",), scaled.unpack, _ANY_SCALE, _named("weight_zero_point"), "weight"),
    Scheme(
        "BitNet", ".weight", ("U8",), bitnet.unpack, _named("weight_scale"), {}, "weight", methods=("bitnet",),
    ),
    Scheme(
        "bitsandbytes 4-bit", ".weight", ("U8",), bitsandbytes.unpack_4bit, _STATE | _TABLES, _NESTED, "weight",
        beside=("absmax",), methods=("bitsandbytes",),
    ),
    Scheme(
        "NVFP4", ".weight", ("U8",), nvfp4.unpack_modelopt, _named("weight_scale"), _named("weight_scale_2"), "weight",
    ),
    Scheme("FP8", ".weight", _FP8, scaled.unpack, _ANY_SCALE, {}, "weight"),
    Scheme(
        "FP8", "", _FP8, scaled.unpack, {"scale": ("_scale_inv", "_scale", "_weight_scale")}, {}, "weight", result="",
    ),
)  # fmt: skip

# Scales of activations and caches, which a GGUF does not quantize
_ACTIVATIONS = re.compile(
    r"(?:\.|_)(?:input_scale|input_scale_inv|input_scale_ub|input_zero_point|input_global_scale|activation_scale"
    r"|output_scale|qscale_act|[qkv]_scale|kv_scale|[qkv]_zero_point|prob_output_scale|act_scale)$"
)
# Parts of packed weights, under names that no plain weight has
_PART = re.compile(
    r"\.(?:weight_(?:packed|scale|scale_2|scale_inv|global_scale|shape|zero_point|g_idx)|qweight|qzeros|g_idx|scales|SCB"
    r"|qscale_weight|weight\.(?:absmax|quant_map|quant_state\..*|nested_.*))$|_(?:blocks|scales|scale_inv)$"
)


def unpacked(tensors: Mapping[str, Tensor], packing: Packing | None, where: str) -> dict[str, Tensor]:
    """Return the tensors with every packed weight unpacked, in the same order. Nothing large is read.

    packing: what the configuration says, None if it says nothing. where: what errors call the model.
    Raises ThriftbitError, naming tensor or setting, for packed weights that are incomplete or packed in an unknown
    way."""
    if packing is not None and packing.method in METHODS:
        refuse_unread(packing, where)
    result: dict[str, Tensor] = {}
    used: set[str] = set()
    try:
        for name, tensor in tensors.items():
            found = _scheme_of(name, tensor, tensors, packing)
            if found is None:
                is_plain = tensor.source_dtype in _FP8 and not _PART.search(name)
                result[name] = scaled.plain(tensor) if is_plain else tensor
                continue
            scheme, base = found
            module = _module(scheme, base, tensors, packing)
            used |= {each.name for each in module.parts.values()}
            for weight in _as_others_name_it(scheme.unpack(module)):
                result[weight.name] = weight
    except ThriftbitError as error:
        raise ThriftbitError(f"{where}: {error}") from None
    if used or packing is not None:
        for name in used:
            if result.get(name) is tensors[name]:  # unless it is the unpacked weight, which may have the same name
                del result[name]
        for name in [name for name in result if _ACTIVATIONS.search(name)]:
            del result[name]
        _refuse_leftovers(result, packing, where)
    return result


def _scheme_of(
    name: str, tensor: Tensor, tensors: Mapping[str, Tensor], packing: Packing | None
) -> tuple[Scheme, str] | None:
    """Return the scheme that the tensor is the core of, and the module's name; None for any other tensor."""
    for scheme in SCHEMES:
        if tensor.source_dtype not in scheme.dtypes or not name.endswith(scheme.core):
            continue
        base = name.removesuffix(scheme.core)
        if scheme.methods or scheme.beside:
            method = _method(packing)
            known = {**scheme.needs, **scheme.takes}
            there = all(any(base + end in tensors for end in known[part]) for part in scheme.beside)
            if method not in scheme.methods and not (scheme.beside and there):
                continue
        if scheme.name == "FP8" and packing is None and not _parts(scheme.needs, base, tensors):
            return None  # FP8 without any scale: the numbers are the weights
        if _PART.search(name) and scheme.core not in (".qweight", ".weight_packed", "_blocks"):
            return None  # scales may be stored as FP8 too
        return scheme, base
    return None


def _method(packing: Packing | None) -> str:
    """Return the method. AutoRound writes the tensors of GPTQ or AWQ, so one of these is returned for it."""
    if packing is None:
        return ""
    return "awq" if packing.method == "auto-round" and "awq" in packing.format else packing.method


def _parts(wanted: Mapping[str, tuple[str, ...]], base: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    found = {}
    for part_name, ends in wanted.items():
        name = next((base + end for end in ends if base + end in tensors), None)
        if name is not None:
            found[part_name] = tensors[name]
    return found


def _module(scheme: Scheme, base: str, tensors: Mapping[str, Tensor], packing: Packing | None) -> Module:
    parts = _parts({**scheme.needs, **scheme.takes}, base, tensors)
    core = tensors[base + scheme.core]
    for part_name, ends in scheme.needs.items():
        if part_name not in parts:
            raise ThriftbitError(
                f"{core.name!r} is packed ({scheme.name}), and {shown(base + ends[0])} is missing. "
                "Download the model again"
            )
    settings = {} if packing is None else packing.of_module(base)
    return Module(base + scheme.result, {**parts, scheme.part: core}, settings)


def _as_others_name_it(weight: Tensor) -> Iterator[Tensor]:
    """Yield the weight under the names that other checkpoints use: mlx-lm stacks a layer's experts under its own
    name."""
    before, found, after = weight.name.partition(".switch_mlp.")
    if not found or len(weight.shape) != 3:
        yield weight
        return
    for expert in range(weight.shape[0]):
        yield part(weight, expert).renamed(f"{before}.experts.{expert}.{after}")


def _refuse_leftovers(result: Mapping[str, Tensor], packing: Packing | None, where: str) -> None:
    """Raise ThriftbitError if parts of packed weights are left over, or tensors packed in an unknown way."""
    parts = [name for name in result if _PART.search(name)]
    strange = [name for name, tensor in result.items() if not tensor.is_packed and tensor.source_dtype not in READABLE]
    if packing is not None and (strange or parts):
        refuse_unread(packing, where, strange or parts)
    if packing is not None and strange and not parts:
        raise _not_read(packing, where, strange)
    if parts:
        raise ThriftbitError(
            f"{where}: {parts[0]!r} belongs to a packed weight that is missing. Download the model again"
        )


def refuse_unread(packing: Packing, where: str, names: Sequence[str] = ()) -> None:
    """Raise ThriftbitError if weights with this packing cannot be read here. names: of some such weights, if known."""
    rotated = packing.settings.get("transform_config")
    if packing.method not in METHODS or packing.settings.get("quantization_mode") == "online":
        raise _not_read(packing, where, names)
    if rotated:
        raise ThriftbitError(
            f"{where}: {packing.origin} has a transform_config: the model rotates what it computes with, which "
            f"llama.cpp does not. {_INSTEAD}"
        )


def _not_read(packing: Packing, where: str, names: Sequence[str]) -> ThriftbitError:
    listed = f" ({enumeration(names)})" if names else ""
    return ThriftbitError(
        f"{where}: the weights are packed by {shown(packing.form)}, which is not read{listed}. {_INSTEAD}"
    )


_INSTEAD = "Take the model it was made from (base_model in its README.md)"
