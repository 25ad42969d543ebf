"""A model folder in the layout of Hugging Face: config.json, safetensors, tokenizer files.

Opening one reads the configuration and the headers of all shards, and proves that they agree with the index, so that
every mistake that can be seen without the weights is told before any work starts. Weights stay on disk (`Tensor`).

Which file holds the weights is decided as transformers decides it: model.safetensors, else the index of shards; beyond
that a single safetensors file of any other name. Pickle checkpoints (*.bin, *.pt, *.pth, *.ckpt) are refused: loading
one runs whatever code is in it. Shards may be symbolic links, as they are in the Hub's cache, but are named without
folders."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from thriftbit.containers.regular_files import open_regular
from thriftbit.containers.unfinished_download import how_to_finish, is_unfinished
from thriftbit.errors import ThriftbitError, enumeration, shown
from thriftbit.sources.json_object import read_json_object
from thriftbit.sources.packed import Packing, find_packing, unpacked, without_packing
from thriftbit.sources.safetensors_file import read_safetensors
from thriftbit.sources.tensor import Tensor
from thriftbit.strangers import quoted

CONFIG = "config.json"
SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
NOT_WEIGHTS = ("training_args.bin", "optimizer.bin", "optimizer.pt", "scheduler.pt", "scheduler.bin", "rng_state.pth")


_MOST_SHARDS = 4096  # the largest models have a few hundred


@dataclass(frozen=True)
class Checkpoint:
    """path: the folder. config: config.json, a nested `text_config` left as it is, without what it says of packed
    weights. tensors: by the source's names, unpacked. packing: how they are stored; None for plain weights.
    withdrawn: tensors that the index names and no shard holds -> the shard that the index gives for them. Whether the
    model needs them is for its architecture to say."""

    path: Path
    config: dict[str, Any]
    tensors: Mapping[str, Tensor]
    packing: Packing | None = None
    withdrawn: Mapping[str, str] = field(default_factory=dict)

    def file(self, name: str) -> Path | None:
        """Return the folder's file of that name; None if there is none."""
        path = self.path / name
        if not is_bare_name(name) or not (path.exists() or path.is_symlink()):
            return None
        open_regular(path).close()  # a dangling link is told here, not taken for a file that was never there
        return path


def open_checkpoint(folder: Path) -> Checkpoint:
    """Return the checkpoint in a folder. Raises ThriftbitError, naming the file or tensor, if the model is not
    whole."""
    config = read_config(folder)
    files = weight_files(str(folder), folder, _names(folder))
    stored = _all_tensors([folder / name for name in files])
    withdrawn = {tensor: name for name, promised in files.items() for tensor in promised if tensor not in stored}
    packing = find_packing(config, folder)
    tensors = unpacked(stored, packing, str(folder))
    return Checkpoint(folder, without_packing(config), tensors, packing, withdrawn)


def read_config(folder: Path) -> dict[str, Any]:
    """Return the folder's config.json; ThriftbitError if it is missing or is no JSON object."""
    if not folder.is_dir():
        raise ThriftbitError(f"{folder} is not a folder")
    names = _names(folder)
    if not names:
        raise ThriftbitError(f"{folder} is empty")
    if CONFIG not in names:
        if "adapter_config.json" in names:
            raise ThriftbitError(
                f"{folder} is an adapter, not a whole model: merge it into its base model first "
                "(peft: `model.merge_and_unload().save_pretrained(...)`)"
            )
        raise ThriftbitError(f"{folder} has no {CONFIG}: it is not a model in Hugging Face's layout")
    return read_json_object(folder / CONFIG)


def refuse_without_safetensors(origin: str, names: Iterable[str], folder: Path | None = None) -> None:
    """Raises ThriftbitError, with the reason and the way out, if none of these files is a safetensors file
    folder: the files' folder, if they are on this computer."""
    names = sorted(names)
    if any(name.endswith(".safetensors") for name in names):
        return
    pickles = [name for name in names if is_pickle(name)]
    if pickles:
        raise pickle_refused(origin, pickles[0])
    if ggufs := [name for name in names if name.endswith(".gguf")]:
        raise ThriftbitError(f"{origin} has no safetensors, but GGUF files: give one of them as the model ({ggufs[0]})")
    if begun := next((name for name in names if is_unfinished(Path(name))), None):
        raise ThriftbitError(
            f"{origin}: the weights are not all here ({begun}). {how_to_finish(folder or Path(origin))}"
        )
    raise ThriftbitError(f"{origin} holds no weights: no *.safetensors file")


def is_pickle(name: str) -> bool:
    return name.endswith(PICKLES) and name not in NOT_WEIGHTS


def pickle_refused(origin: str, name: str) -> ThriftbitError:
    code = (
        "from transformers import AutoModelForCausalLM as M, AutoTokenizer as T; "
        f"s, d = {origin!r}, 'converted'; M.from_pretrained(s, dtype='auto').save_pretrained(d); "
        "T.from_pretrained(s).save_pretrained(d)"
    )
    return ThriftbitError(
        f"{origin} stores its weights as pickle ({name}); loading that runs any code that is in it. If you trust it, "
        f"convert it once:\npython -c {quoted(code)}"
    )


def is_bare_name(name: str) -> bool:
    """Return whether it names a file in a folder and cannot lead out of it, on any platform."""
    return name not in ("", ".", "..") and name.isprintable() and not any(separator in name for separator in "/\\:")


def weight_files(origin: str, folder: Path, names: Collection[str]) -> dict[str, tuple[str, ...]]:
    """Return every file with weights, each with the tensors that the index promises of it.

    names: all files of the model, in `folder` or still on the Hub. Only the index must be in `folder` already.
    origin: what errors call the model."""
    if SINGLE in names:
        return {SINGLE: ()}
    if INDEX in names:
        shards = _shards(origin, folder / INDEX)
        missing = [shard for shard in shards if shard not in names]
        if missing:
            raise ThriftbitError(
                f"{origin}: {len(missing)} of its {len(shards)} shards missing: {enumeration(missing)}. "
                f"{how_to_finish(folder)}. If the model's authors withdrew the file, remove its tensors from {INDEX}"
            )
        return shards
    refuse_without_safetensors(origin, names, folder)
    found = [name for name in names if name.endswith(".safetensors")]
    if len(found) > 1:
        raise ThriftbitError(
            f"{origin} has {len(found)} safetensors files and neither {SINGLE} nor {INDEX} to say which to read"
        )
    return {found[0]: ()}


def _shards(origin: str, index: Path) -> dict[str, tuple[str, ...]]:
    weight_map = read_json_object(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ThriftbitError(f"{index} has no weight_map that says which shard holds which tensor")
    shards: dict[str, list[str]] = {}
    for tensor, shard in weight_map.items():
        if len(shards) > _MOST_SHARDS:
            raise ThriftbitError(f"{index} names more than {_MOST_SHARDS:,} files with weights, which no model has")
        if not isinstance(shard, str) or not is_bare_name(shard):
            raise ThriftbitError(f"{index}: {shown(tensor)} is in {shown(shard)}, which is no file of this folder")
        if is_pickle(shard):
            raise pickle_refused(origin, shard)
        shards.setdefault(shard, []).append(tensor)
    return {shard: tuple(tensors) for shard, tensors in sorted(shards.items())}


def _all_tensors(files: Iterable[Path]) -> dict[str, Tensor]:
    """Return the tensors of all files. One that the index forgot is kept: the architecture knows whether it belongs."""
    tensors: dict[str, Tensor] = {}
    origins: dict[str, Path] = {}
    for file in files:
        for name, tensor in read_safetensors(file).items():
            if name in tensors:
                raise ThriftbitError(f"{shown(name)} is both in {origins[name]} and in {file}")
            tensors[name], origins[name] = tensor, file
    if not tensors:
        raise ThriftbitError(f"{', '.join(map(str, files))} holds no tensors")
    return tensors


def _names(folder: Path) -> set[str]:
    try:
        return {entry.name for entry in folder.iterdir()}
    except OSError as error:
        raise ThriftbitError(f"cannot read {folder}: {error.strerror}") from None
