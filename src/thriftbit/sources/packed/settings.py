"""How a checkpoint says that its weights are packed.

transformers has `quantization_config` in config.json, MLX `quantization`, compressed-tensors once had
`compression_config`, each perhaps within `text_config`. Older tools write a file beside config.json: ModelOpt
hf_quant_config.json, AutoGPTQ quantize_config.json, AutoAWQ quant_config.json.

Settings may differ from module to module: by groups of targets (compressed-tensors), by regular expressions (GPTQModel,
AutoRound) or by name (MLX).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thriftbit.errors import ThriftbitError, shown
from thriftbit.sources.json_object import read_json_object

KEYS = ("quantization_config", "compression_config", "quantization")
SIDECARS = ("hf_quant_config.json", "quantize_config.json", "quant_config.json")

# each quant_method of which this room reads at least one format
METHODS = {
    "auto-round", "awq", "bitnet", "bitsandbytes", "compressed-tensors", "fbgemm_fp8",
    "fp8", "gptq", "mlx", "modelopt", "mxfp4", "nvfp4",
}  # fmt: skip

_PATTERN_LIMIT, _NAME_LIMIT, _MOST_REPETITIONS = 300, 200, 5


@dataclass(frozen=True)
class Packing:
    """How the weights of a checkpoint are packed.

    method: as the configuration names it, in lower case ("fp8"). settings: the whole section. origin: where the section
    is, for people ("…/config.json: quantization_config")."""

    method: str
    settings: Mapping[str, Any]
    origin: str

    @property
    def format(self) -> str:
        """The format of compressed-tensors, the algorithm of ModelOpt or the layout of AutoRound; "" for other
        methods."""
        for key in ("quant_algo", "packing_format", "format"):
            if isinstance(self.settings.get(key), str):
                return str(self.settings[key])[:60].lower()
        return ""

    @property
    def form(self) -> str:
        """Method and format, for people."""
        return f"{self.method} {self.format}".strip()

    def of_module(self, module: str) -> Mapping[str, Any]:
        """Return all settings that apply to one module. module: its name, "model.layers.0.mlp.up_proj"."""
        common = {_SPELLINGS.get(key, key): value for key, value in self.settings.items()}
        if self.method == "compressed-tensors":
            return {**common, **self._group(module)}
        if self.method == "mlx":
            own = self.settings.get(module)
            return {**common, **own} if isinstance(own, Mapping) else common
        for key in ("dynamic", "extra_config"):
            rules = self.settings.get(key)
            for pattern, own in rules.items() if isinstance(rules, Mapping) else ():
                if isinstance(own, Mapping) and self._names(pattern.removeprefix("+:"), module):
                    return {**common, **own}
        return common

    def _group(self, module: str) -> Mapping[str, Any]:
        """Return compressed-tensors' settings of the weights: of the group that lists the module, or else its class."""
        groups = self.settings.get("config_groups")
        if not isinstance(groups, Mapping) or not groups:
            return {}
        by_class: list[Mapping[str, Any]] = []
        for group in groups.values():
            targets = group.get("targets") if isinstance(group, Mapping) else None
            weights = group.get("weights") if isinstance(group, Mapping) else None
            if not isinstance(targets, list) or not isinstance(weights, Mapping):
                continue
            own = {key: group[key] for key in ("format",) if group.get(key)}
            for target in targets:
                if not isinstance(target, str):
                    continue
                if target == module or (target.startswith("re:") and self._names(target[3:], module)):
                    return {**weights, **own}
                if target in _CLASSES:
                    by_class.append({**weights, **own})
        if not by_class:
            raise ThriftbitError(f"{self.origin}: no group in config_groups says how {module!r} is packed")
        return by_class[0]

    def _names(self, pattern: str, module: str) -> bool:
        """Return whether a stranger's regular expression matches the module's name from its beginning. Raises
        ThriftbitError if it is no regular expression, or may take forever."""
        if pattern == module:
            return True
        if _is_costly(pattern):
            raise ThriftbitError(
                f"{self.origin}: the regular expression {shown(pattern)} may take forever; list the modules instead"
            )
        try:
            return re.match(pattern, module[:_NAME_LIMIT]) is not None
        except (re.error, RecursionError, OverflowError):
            raise ThriftbitError(f"{self.origin}: {shown(pattern)} is no regular expression") from None


_SPELLINGS = {"w_bit": "bits", "q_group_size": "group_size"}
_CLASSES = ("Linear", "Embedding", "LinearBase", "QuantLinear")


def _is_costly(pattern: str) -> bool:
    """Return whether matching could take more than polynomial time of a low degree: a repeated group that itself
    repeats or chooses, many repetitions, references to groups."""
    plain = re.sub(r"\\.", "x", pattern)
    plain = re.sub(r"\[[^\]]*\]", "x", plain)
    repetitions = len(re.findall(r"[*+{]", plain))
    repeated_group = re.search(r"\)\s*[*+{]", plain) is not None
    return (
        len(pattern) > _PATTERN_LIMIT
        or repetitions > _MOST_REPETITIONS
        or (repeated_group and (repetitions > 1 or "|" in plain))
        or re.search(r"\\[1-9]|\(\?P=", pattern) is not None
    )


def find_packing(config: Mapping[str, Any], folder: Path | None = None) -> Packing | None:
    """Return how the weights are packed, by config.json or by the files beside it; None if nothing says that they are.
    folder: the model's. Raises ThriftbitError for a file beside it that cannot be read."""
    for section, key, found in _sections(config):
        if isinstance(found, Mapping) and found and not _is_idle(found):
            packing = Packing(_method(found, key), dict(found), f"config.json: {section}{key}")
            return _with_sidecar(packing, folder)
        if found and not isinstance(found, Mapping):
            return Packing(str(found)[:40].lower(), {}, f"config.json: {section}{key}")
    return _from_sidecar(folder)


def without_packing(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration of the same model with plain weights."""
    plain = {key: value for key, value in config.items() if key not in KEYS}
    text = plain.get("text_config")
    return {**plain, "text_config": without_packing(text)} if isinstance(text, dict) else plain


def _sections(config: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    text = config.get("text_config")
    for prefix, section in (("", config), ("text_config.", text if isinstance(text, Mapping) else {})):
        for key in KEYS:
            yield prefix, key, section.get(key)


def _is_idle(found: Mapping[str, Any]) -> bool:
    """Return whether these are settings that bitsandbytes left in a model whose weights it did not change."""
    idle = not (found.get("load_in_4bit") or found.get("load_in_8bit"))
    return found.get("quant_method") == "bitsandbytes" and idle


def _method(found: Mapping[str, Any], key: str) -> str:
    """Return quant_method. Where it is missing, return the method of the library that writes such a section without
    it."""
    method = str(found.get("quant_method") or "").lower()[:40]
    if method in ("intel/auto-round", "auto_round"):
        return "auto-round"
    if method:
        return method
    if found.get("quant_algo"):
        return "modelopt"
    if "config_groups" in found:
        return "compressed-tensors"
    if "w_bit" in found:
        return "awq"
    return "mlx" if key == "quantization" or {"bits", "group_size"} <= found.keys() else "quantized"


def _with_sidecar(packing: Packing, folder: Path | None) -> Packing:
    """Return the packing with the settings of ModelOpt's own file. config.json names ModelOpt, but lacks the
    settings."""
    if packing.method != "modelopt" or packing.settings.get("quant_algo"):
        return packing
    beside = _from_sidecar(folder)
    return packing if beside is None else Packing("modelopt", {**beside.settings, **packing.settings}, beside.origin)


def _from_sidecar(folder: Path | None) -> Packing | None:
    for name in SIDECARS if folder is not None else ():
        assert folder is not None
        if not (folder / name).is_file():
            continue
        found = read_json_object(folder / name)
        if name == SIDECARS[0]:
            found = found["quantization"] if isinstance(found.get("quantization"), dict) else found
            return Packing("modelopt", found, name)
        method = "gptq" if name == SIDECARS[1] else "awq"
        return Packing(str(found.get("quant_method") or method).lower()[:40], found, name)
    return None
