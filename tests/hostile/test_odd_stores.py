"""Our own stores with odd content: valid JSON of other types, deep nesting, pipes and folders in their place."""

from __future__ import annotations

import copy
import json
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from thriftbit.errors import ThriftbitError
from thriftbit.library.content import IN_LAYERS, Content, Group
from thriftbit.library.header_cache import HeaderCache
from thriftbit.library.kinds import KINDS, TEXT
from thriftbit.machine.corrections import Run, read_correction, record
from thriftbit.machine.private_files import private_folder
from thriftbit.machine.profile import Profile, load_profile, stored_profile
from thriftbit.measurement.store import read as read_rows
from thriftbit.quantization import model_map
from thriftbit.quantization.journal import Journal
from thriftbit.quantization.sensitivity import Anchor, Trust
from thriftbit.runtime.examine import examine
from thriftbit.side_by_side.votes import read as read_votes
from thriftbit.sources.open_model import open_model

ODD: list[Any] = [
    *(None, True, -1, 0, 2**70, 10**400, 1.5, -1e308, "", "x", "\x1b[2J", [], [1], [[]], {}, {"a": 1}, [None] * 3),
]
DEEP = b"[" * 100_000 + b"]" * 100_000


def variations(document: Any) -> Iterator[Any]:
    """Yield the document with each of its parts replaced by every odd value, and without each of its keys."""
    yield from ODD
    places: list[tuple[Any, ...]] = []

    def walk(value: Any, path: tuple[Any, ...]) -> None:
        for key, below in (
            value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        ):
            places.append((*path, key))
            walk(below, (*path, key))

    walk(document, ())
    for path in places:
        for odd in [*ODD, KeyError]:
            changed = copy.deepcopy(document)
            holder = changed
            for key in path[:-1]:
                holder = holder[key]
            if odd is KeyError:
                del holder[path[-1]]
            else:
                holder[path[-1]] = odd
            yield changed


def test_the_library_is_read_anew_where_its_record_is_odd(tmp_path: Path) -> None:
    model, store = tmp_path / "a.gguf", tmp_path / "library.json"
    model.write_bytes(b"GGUF")
    content = Content("GGUF", TEXT, "a", "llama", "Q4_K_M", (Group("Q4_K", IN_LAYERS, 10, 5),), 10, 5)
    cache = HeaderCache(store)
    cache.content([model], lambda: content)
    cache.hash(model, "sha256", lambda: "0" * 64)
    cache.save()
    document = json.loads(store.read_bytes())
    for odd in variations(document):
        store.write_text(json.dumps(odd))
        cache = HeaderCache(store)
        try:
            found = cache.content([model], lambda: content)
        except ThriftbitError:  # a text as the problem of a file can be right
            continue
        assert (
            found.kind in KINDS
            and isinstance(found.bits_per_weight, float | None)
            and isinstance(found.main_type, str | None)
        )
        assert isinstance(cache.hash(model, "sha256", lambda: "1"), str)
        cache.save()
    for raw in (DEEP, b"", b"\xff", b"NaN"):
        store.write_bytes(raw)
        assert HeaderCache(store).content([model], lambda: content) == content


def test_a_map_with_odd_values_is_computed_again_there(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THRIFTBIT_CACHE", str(tmp_path))
    model = open_model(tiny_llama)
    made = model_map._made_of(model, None)
    made.write(private_folder(made.folder))
    path = made.folder / "map.jsonl"
    sound = {
        "losses blk.0.attn_q.weight": {"Q4_K": 0.1, "Q8_0": 0.01},
        "saving blk.0.attn_q.weight": 0.5,
        "tried in Q4_K": {"Q5_K": 1.1},
        "measured output": {"output.weight": {"Q4_K": 0.1}},
        "plan plain 0.1": {"effort": "plain", "predicted": 0.1, "measured": 0.1, "spread": 0.01},
        "finished plain": 100,
    }
    path.write_text("".join(json.dumps(item) + "\n" for item in sound.items()))
    known = model_map.read_map(model, "plain")
    assert known is not None and known.losses["output.weight"] == {"Q4_K": 0.1}
    formats = {"blk.0.attn_q.weight": "Q4_K", "output.weight": "Q4_K"}
    for key, value in sound.items():
        for odd in variations(value):
            lines = {**sound, key: odd}
            path.write_text("".join(json.dumps(item) + "\n" for item in lines.items()))
            found = model_map.read_map(model, "plain")
            if found is not None:
                assert all(math.isfinite(number) for number in vars(found.predict(formats)).values())
    for line in [*map(json.dumps, ODD), DEEP.decode(), '["losses a"]', "[[1], 2]", '{"a": 1, "b": 2}']:
        path.write_text(line + "\n" + json.dumps(["finished plain", 1]) + "\n")
        assert model_map.read_map(model, "plain") is not None


def test_plans_that_lost_nothing_have_no_logarithm() -> None:
    trust = Trust.of([Anchor("plain", 0.0, 0.0, 0.0), Anchor("plain", 0.1, 0.2, 0.1)], "plain")
    assert trust.predict(0.1).value == pytest.approx(0.2)


def test_runs_of_odd_types_are_passed_over(tmp_path: Path) -> None:
    path, profile = tmp_path / "runs.jsonl", Profile(examine(), measured_at="now")
    record([Run("decode_rate", 10.0, 9.0, "now")], path)
    document = json.loads(path.read_bytes())
    sound = read_correction("decode_rate", profile, path)
    for odd in variations(document):
        path.write_text(json.dumps(odd) + "\n" + json.dumps(document) + "\n")
        found = read_correction("decode_rate", profile, path)
        assert math.isfinite(found.factor) and found.factor > 0
    path.write_bytes(DEEP + b"\n" + json.dumps(document).encode() + b"\n")
    assert read_correction("decode_rate", profile, path) == sound


READERS: dict[str, Callable[[Path], object]] = {
    "profile": load_profile,
    "rows": read_rows,
    "votes": read_votes,
    "journal": Journal,
}


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS.keys())
@pytest.mark.parametrize("kind", ["pipe", "folder", "device"])
def test_what_is_no_file_is_an_error_of_one_line(tmp_path: Path, kind: str, reader: Callable[[Path], object]) -> None:
    path = tmp_path / "store"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero")
    with pytest.raises(ThriftbitError, match="is not a regular file") as caught:
        reader(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["pipe", "folder"])
def test_what_we_only_keep_for_speed_may_be_anything(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THRIFTBIT_CACHE", str(tmp_path))
    make = os.mkfifo if kind == "pipe" else os.mkdir
    (tmp_path / "machine").mkdir()
    for name in ("library.json", "machine/profile.json", "machine/runs.jsonl"):
        make(tmp_path / name)
    assert stored_profile(examine()) is None
    read_correction("decode_rate", Profile(examine(), measured_at="now"))
    HeaderCache().hash(tmp_path, "sha256", lambda: "0")
