"""The program that runs llama.cpp's converter in a process of its own; `process.py` starts it and says why.

It imports nothing of Thriftbit, because the converter brings a `gguf` package of its own. Arguments: the converter's
folder, the model's folder. Its standard output is a sequence of messages, each a length and that many bytes. The first
message is a JSON object that describes the converted model. Then each line of standard input asks for rows of one
tensor ("NUMBER START STOP"), and the answer is a message of float32.

The converter computes its tensors lazily: a tensor is a graph of functions over the checkpoint's tensors. Its own way
to evaluate the graph keeps every intermediate value, which suits a program that writes each tensor once. Here rows may
be asked for again, so the graph is evaluated without keeping anything, one tensor at a time.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
NETWORK_EVENTS = ("socket.connect", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo", "socket.bind")
PROGRAM_EVENTS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "pty.spawn")
# The part of a lazy graph that works entry by entry of the first axis; `names` are methods of tensors.
ELEMENTWISE = frozenset({"to", "float", "half", "bfloat16", "numpy", "contiguous", "clone"})


def refuse_network_and_programs() -> None:
    """Refuse network and programs. The kernel refuses where ordinary users may ask for that; Python refuses
    everywhere."""
    if sys.platform == "linux":
        ctypes.CDLL(None).unshare(CLONE_NEWUSER | CLONE_NEWNET)

    def refuse(event: str, arguments: tuple[Any, ...]) -> None:
        if event in NETWORK_EVENTS or event in PROGRAM_EVENTS:
            raise PermissionError(f"{event} is not allowed while a model is converted")

    sys.addaudithook(refuse)


class Channel:
    """Standard output, kept from everything else that this process prints."""

    def __init__(self) -> None:
        self._file = os.fdopen(os.dup(1), "wb")
        os.dup2(2, 1)

    def send(self, content: Any) -> None:
        view = memoryview(content).cast("B")
        self._file.write(view.nbytes.to_bytes(8, "little"))
        self._file.write(view)
        self._file.flush()

    def tell(self, message: dict[str, Any]) -> None:
        self.send(json.dumps(message).encode())


def find_class(folder: Path) -> Any:
    """Return the converter's class for the model in the folder."""
    conversion: Any = importlib.import_module("conversion")
    settings = conversion.ModelBase.load_hparams(folder, False)
    name = conversion.get_model_architecture(settings, conversion.ModelType.TEXT)
    with missing_names_allowed():
        return conversion.get_model_class(name, mmproj=False)


class MissingName:
    """Stands for a name that the converter's `gguf` lacks. It is equal to nothing, so whoever needs it is refused."""


@contextmanager
def missing_names_allowed() -> Iterator[None]:
    """In this context, names that the converter's `gguf` lacks are no error. One file of the converter is about many
    classes. In release 0.1.1, the file about DeepSeek asks for names that `gguf` lacks and that only DeepSeek-V4
    needs."""
    import gguf

    def lenient(enumeration: Any) -> Any:
        class Kind(type):
            def __getattr__(cls, name: str) -> Any:
                return getattr(enumeration, name, None) or MissingName()

            def __instancecheck__(cls, instance: Any) -> bool:
                return isinstance(instance, enumeration)

        return Kind(enumeration.__name__, (), {})

    names = ("MODEL_ARCH", "MODEL_TENSOR")
    real = {name: getattr(gguf, name) for name in names}
    for name in names:
        setattr(gguf, name, lenient(real[name]))
    try:
        yield
    finally:
        for name in names:
            setattr(gguf, name, real[name])


class DescribedError(Exception):
    """Raised to stop the converter before it writes a file: all tensors and keys are described, and none is
    computed."""

    def __init__(self, writer: Any) -> None:
        super().__init__()
        self.writer = writer


def converted(folder: Path, without_next_token_layers: bool) -> Any:
    """Return the converter's writer of the model, which has the descriptions of all tensors and keys."""
    import gguf

    cls = find_class(folder)
    for each in subclasses(importlib.import_module("conversion").ModelBase):
        each.set_vocab = lambda self: None  # the tokenizer is the parent's business
    if without_next_token_layers and getattr(cls, "supports_mtp_export", False):
        cls.no_mtp = True

    def described(writer: Any, path: Any = None) -> None:
        raise DescribedError(writer)

    setattr(gguf.GGUFWriter, "write_header_to_file", described)  # noqa: B010 - mypy would want its signature
    try:
        cls(folder, gguf.LlamaFileType.ALL_F32, folder / "unused.gguf").write()
    except DescribedError as found:
        return found.writer
    raise RuntimeError("the converter ended without a file")


def subclasses(cls: Any) -> list[Any]:
    """Return the class and all its subclasses."""
    return [cls, *(each for child in cls.__subclasses__() for each in subclasses(child))]


def described(writer: Any) -> tuple[dict[str, Any], list[Any]]:
    """Return what the parent is told, and the tensors in that order."""
    keys = {key: value for part in writer.kv_data for key, value in part.items()}
    tensors = {name: info for part in writer.tensors for name, info in part.items()}
    metadata = [
        {"key": key, "type": int(v.type), "sub_type": -1 if v.sub_type is None else int(v.sub_type), "value": plain(v)}
        for key, v in keys.items()
    ]
    shapes = [{"name": n, "shape": [int(s) for s in i.shape], "type": i.dtype.name} for n, i in tensors.items()]
    return {"metadata": metadata, "tensors": shapes}, [info.tensor for info in tensors.values()]


def plain(value: Any) -> Any:
    """Return a metadata value as JSON has it."""
    content = value.value
    if hasattr(content, "tolist"):
        return content.tolist()
    if isinstance(content, bytes):
        return list(content)
    if isinstance(content, list | tuple):
        return [item.item() if hasattr(item, "item") else item for item in content]
    return content.item() if hasattr(content, "item") else content


class Evaluation:
    """Computes rows of lazy tensors.

    tensors: as the converter describes them. The tensor that was computed last is kept, because its rows are asked for
    piece by piece. Of stacked experts, the last expert is kept."""

    def __init__(self, tensors: list[Any]) -> None:
        self._tensors = tensors
        self._kept: tuple[Any, Any] = (None, None)

    def rows(self, number: int, start: int, stop: int) -> Any:
        """Return rows of the tensor seen as (rows, bytes or values of a row)."""
        import numpy as np

        tensor = self._tensors[number]
        shape = tuple(tensor.shape)
        entries = stacked_entries(tensor)
        rows_each = int(np.prod(shape[1:-1])) if entries else 0
        if not entries:
            return self._value(number, lambda: evaluate(tensor)).reshape(-1, shape[-1])[start:stop]
        pieces = []
        while start < stop:
            entry, first = divmod(start, rows_each)
            last = min(rows_each, first + stop - start)
            value = self._value((number, entry), partial(evaluate_entry, tensor, entry))
            pieces.append(value.reshape(-1, shape[-1])[first:last])
            start += last - first
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def _value(self, key: Any, compute: Callable[[], Any]) -> Any:
        if self._kept[0] != key:
            self._kept = (None, None)  # frees its memory before the next is computed
            self._kept = (key, compute())
        return self._kept[1]


def evaluate(node: Any, known: dict[int, Any] | None = None) -> Any:
    """Return the value of a lazy tensor. Values inside the graph are kept only while it is computed."""
    import gguf

    if not isinstance(node, gguf.LazyBase):
        return node
    if node._data is not None:
        return node._data
    known = {} if known is None else known
    if id(node) not in known:
        compute: Any = node._func
        arguments = type(node)._recurse_apply(node._args, lambda each: evaluate(each, known))
        known[id(node)] = compute(*arguments, **node._kwargs)
    return known[id(node)]


def stacked_entries(node: Any) -> int:
    """Return how many entries the tensor has if it is a stack of lazy
    tensors whose entries can be computed one by one."""
    stack, _ = _stack_under(node)
    return len(stack._args[0]) if stack is not None else 0


def evaluate_entry(node: Any, entry: int) -> Any:
    """Return the value of one entry of such a tensor, with a first axis of one."""
    stack, above = _stack_under(node)
    value = stack._func([evaluate(stack._args[0][entry])], **stack._kwargs)
    for step in reversed(above):
        value = step._func(value, *step._args[1:], **step._kwargs)
    return value


def _stack_under(node: Any) -> tuple[Any, list[Any]]:
    """Return the stack over the first axis below the tensor, and the steps from the tensor down to the stack."""
    import gguf
    import torch

    above: list[Any] = []
    lazy: Any = gguf.LazyBase
    while isinstance(node, lazy) and node._data is None:
        if node._func is torch.stack and not node._args[1:] and node._kwargs.get("dim", 0) == 0:
            return node, above
        if not _is_elementwise(node) or tuple(node._args[0].shape) != tuple(node.shape):
            break
        above.append(node)
        node = node._args[0]
    return None, []


def _is_elementwise(node: Any) -> bool:
    """Return whether the step works number by number. A step's function is a closure of the converter's lazy tensors,
    in which the method's name is a variable."""
    import gguf

    if not node._args or not isinstance(node._args[0], gguf.LazyBase):
        return False
    code, cells = getattr(node._func, "__code__", None), getattr(node._func, "__closure__", None) or ()
    if code is None:
        return False
    if not cells:
        return set(code.co_names) <= {"numpy", "astype"} and bool(code.co_names)
    names = dict(zip(code.co_freevars, (cell.cell_contents for cell in cells), strict=True))
    return set(code.co_names) <= {"getattr"} and names.get("name") in ELEMENTWISE


def main() -> None:
    channel = Channel()
    if "--trusted" not in sys.argv:
        refuse_network_and_programs()
    converter, folder = Path(sys.argv[1]), Path(sys.argv[2])
    sys.path.insert(0, str(converter))
    if (converter / "gguf-py").is_dir():
        sys.path.insert(0, str(converter / "gguf-py"))
    try:
        import torch

        with torch.inference_mode():
            description, tensors = described(converted(folder, "--without-next-token-layers" in sys.argv))
    except Exception as error:
        traceback.print_exc()
        channel.tell({"error": f"{type(error).__name__}: {error}"})
        return
    channel.tell(description)
    evaluation = Evaluation(tensors)
    with torch.inference_mode():
        for line in sys.stdin:
            import numpy as np

            channel.send(np.ascontiguousarray(evaluation.rows(*map(int, line.split()))).data)


if __name__ == "__main__":
    main()
