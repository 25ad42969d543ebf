"""Weights and networks for tasks that may be computed in another process.

A task gets a layer's weights as a file, which every process maps into its memory, so there is one copy of them for all
processes. It gets the network as a `Blueprint`: the configuration, and the few weights that `embed` needs for a probe.
Each process builds the network from it once. The process that made the blueprint uses the network it has.

Matrices of linear layers are stored in bfloat16 if products are of bfloat16 (`products.py`), because each product would
convert them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from transformers import PretrainedConfig

from thriftbit.machine.private_files import open_private
from thriftbit.network.network import Network
from thriftbit.network.weights import Weights

_ALIGNMENT_BYTES = 64
_TYPES = {"float32": (np.float32, torch.float32), "bfloat16": (np.int16, torch.bfloat16)}


@dataclass(frozen=True)
class Stored:
    """Tensors in a file. entries: name, type, shape and offset in bytes of each."""

    path: Path
    entries: tuple[tuple[str, str, tuple[int, ...], int], ...]

    @classmethod
    def of(cls, path: Path, tensors: Iterable[tuple[str, torch.Tensor]]) -> Stored:
        """Write tensors to a file. tensors: names with float32 or bfloat16 tensors; they are taken one at a time."""
        entries = []
        with open_private(path, "wb") as file:
            for name, tensor in tensors:
                kind = str(tensor.dtype).removeprefix("torch.")
                file.write(bytes(-file.tell() % _ALIGNMENT_BYTES))
                entries.append((name, kind, tuple(tensor.shape), file.tell()))
                values = tensor.detach().contiguous().cpu().view(-1)
                file.write((values.view(torch.int16) if kind == "bfloat16" else values).numpy().data)
        return cls(path, tuple(entries))

    @property
    def size_bytes(self) -> int:
        return sum(math.prod(shape) * _TYPES[kind][1].itemsize for _, kind, shape, _ in self.entries)

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the tensors, mapped from the file. Nothing is read before it is needed."""
        found = {}
        for name, kind, shape, offset in self.entries:
            if math.prod(shape):
                stored, wanted = _TYPES[kind]
                mapped = np.memmap(self.path, stored, "c", offset, math.prod(shape))
                found[name] = torch.from_numpy(np.asarray(mapped)).view(wanted).view(shape)
            else:
                found[name] = torch.empty(shape)
        return found


class StoredWeights:
    """A `Source` for `Network`, from stored tensors. outputs: the output matrix. tables: by the names of tables, the
    rows of tokens 0, 1, 2, …"""

    def __init__(
        self, layers: Iterable[Stored] = (), outputs: Stored | None = None, tables: Stored | None = None
    ) -> None:
        self._tensors: dict[str, torch.Tensor] = {}
        for stored in layers:
            self._tensors |= stored.tensors()
        self._outputs = outputs.tensors()["outputs"] if outputs else torch.empty(0)
        self._tables = tables.tensors() if tables else {}

    def load(self, names: Iterable[str], prefix: str = "") -> dict[str, torch.Tensor]:
        return {name: self._tensors[prefix + name] for name in names}

    def rows(self, name: str, tokens: Iterable[int]) -> torch.Tensor:
        return self._tables[name][list(tokens)]

    @property
    def output_rows(self) -> int:
        return len(self._outputs)

    def outputs(self, start: int, stop: int) -> torch.Tensor:
        return self._outputs[start:stop]


@dataclass(frozen=True)
class Blueprint:
    """A network that any process can build.

    key: unique. config: the model's. outside: the weights outside of layers. tables: some rows of the tables of tokens.
    shapes: (texts, length) of all batches."""

    key: str
    config: PretrainedConfig
    device: str
    outside: Stored
    tables: Stored
    shapes: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, network: Network, weights: Weights, batches: list[torch.Tensor], folder: Path) -> Blueprint:
        """Make a blueprint of a network.

        batches: int64 (texts, length) each, after they passed `network.embed`. folder: for files, which have to stay as
        long as tasks are computed."""
        shapes = tuple(sorted({(batch.shape[0], batch.shape[1]) for batch in batches}))
        tables = {name: weights.rows(name, [0]) for name in network.table_names}
        blueprint = cls(
            str(folder),
            network.config,
            str(network.device),
            Stored.of(folder / "outside.weights", weights.load(network.outside_names).items()),
            Stored.of(folder / "tables.weights", tables.items()),
            shapes,
        )
        _networks.clear()
        _networks[blueprint.key] = network
        return blueprint

    def build(self) -> Network:
        """Return the network. It is built only if this process does not have it yet."""
        if self.key not in _networks:
            network = Network(self.config, torch.device(self.device))
            probe = StoredWeights([self.outside], tables=self.tables)
            with torch.no_grad():
                for texts, length in self.shapes:
                    network.embed(probe, torch.zeros(texts, length, dtype=torch.int64))
            _networks.clear()
            _networks[self.key] = network
        return _networks[self.key]


_networks: dict[str, Network] = {}  # the latest network of this process


def store_layer(network: Network, index: int, weights: Weights, path: Path, *, short: bool) -> Stored:
    """Return the weights of layer `index`, in a new file. short: whether products are of bfloat16."""
    prefix = f"{network.layers_name}.{index}."
    matrices = {f"{name}.weight" for name in network.linear_names(index)} if short else set[str]()

    def read() -> Iterator[tuple[str, torch.Tensor]]:
        for name in network.layer_names(index):
            values = weights.load([name], prefix)[name]
            yield prefix + name, values.to(torch.bfloat16) if name in matrices else values

    return Stored.of(path, read())


def store_outputs(weights: Weights, path: Path, *, short: bool) -> Stored:
    """Return the output matrix in a new file. short: as of `store_layer`."""
    rows = weights.output.rows
    step = max(1, (64 << 20) // (4 * weights.output.width))
    kind = "bfloat16" if short else "float32"
    with open_private(path, "wb") as file:
        for start in range(0, rows, step):
            values = weights.outputs(start, min(start + step, rows)).contiguous()
            file.write((values.to(torch.bfloat16).view(torch.int16) if short else values).numpy().data)
    return Stored(path, (("outputs", kind, (rows, weights.output.width), 0),))


@contextmanager
def layer_of(blueprint: Blueprint, index: int, stored: Iterable[Stored]) -> Iterator[tuple[Network, nn.Module]]:
    """Yield the network, and the layer filled with weights.

    stored: the layer's weights; of two with the same name, the later one is used."""
    network = blueprint.build()
    with network.layer(index, StoredWeights(stored)) as layer:
        yield network, layer
