"""Downloads from a Hub that is a small HTTP server here, through the real huggingface_hub and its real cache."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import constants

from conftest import messages_to
from thriftbit.errors import ThriftbitError
from thriftbit.library.pulling import pull
from thriftbit.sources import hub
from thriftbit.sources.hub import HubId, download, download_files, parse_hub_id, repository_of

from .fake_hub import COMMIT, NEEDED, REPOSITORY, SHARDS, FakeHub, is_large, repository_files


def fetch(model: str = REPOSITORY, offline: bool = False) -> tuple[Path, list[str]]:
    """Return the folder and what was told."""
    said: list[str] = []
    hub_id = parse_hub_id(model)
    assert hub_id is not None
    with messages_to(said.append):
        return download(hub_id, offline=offline, check=lambda folder: None), said


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_what_is_needed_arrives_whole_and_nothing_else(fake_hub: FakeHub) -> None:
    folder, said = fetch()
    assert contents(folder) == {name: repository_files()[name] for name in NEEDED}
    assert {name for name, _, _ in fake_hub.served} == NEEDED
    assert said == [f"{REPOSITORY}: downloading 440 kB of 440 kB into {constants.HF_HUB_CACHE}."]
    assert repository_of(folder) == REPOSITORY


def test_the_amount_is_told_before_any_weight_moves(fake_hub: FakeHub) -> None:
    def interrupt(message: str) -> None:
        raise KeyboardInterrupt(message)

    with messages_to(interrupt), pytest.raises(KeyboardInterrupt, match="downloading"):
        download(HubId(REPOSITORY), offline=False, check=lambda folder: None)
    assert {name for name, _, _ in fake_hub.served} == {"config.json", "model.safetensors.index.json"}


def test_a_model_that_cannot_be_read_costs_no_download(fake_hub: FakeHub) -> None:
    def refuse(folder: Path) -> None:
        raise ThriftbitError(json.loads((folder / "config.json").read_text())["model_type"])

    with pytest.raises(ThriftbitError, match="llama"):
        download(HubId(REPOSITORY), offline=False, check=refuse)
    assert not any(is_large(name) for name, _, _ in fake_hub.served)


def test_the_second_time_nothing_is_downloaded(fake_hub: FakeHub) -> None:
    folder, _ = fetch()
    fake_hub.served.clear()
    again, said = fetch()
    assert again == folder
    assert fake_hub.served == []
    assert said == [f"{REPOSITORY}: all 440 kB are in the cache already."]


def test_offline_takes_the_cache_and_asks_nobody(fake_hub: FakeHub) -> None:
    folder, _ = fetch()
    fake_hub.refusal = (500, "")
    assert fetch(offline=True) == (folder, [])


def test_offline_by_environment(fake_hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, _ = fetch()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert fetch() == (folder, [])


def test_offline_without_a_copy_says_so(fake_hub: FakeHub) -> None:
    with pytest.raises(ThriftbitError, match=r"is not in the cache .* run once without --offline"):
        fetch(offline=True)


def test_a_pinned_revision(fake_hub: FakeHub) -> None:
    folder, said = fetch(f"{REPOSITORY}@{COMMIT}")
    assert folder.name == COMMIT
    assert said[0].startswith(f"{REPOSITORY}@{COMMIT}: downloading")
    assert fetch(f"{REPOSITORY}@{COMMIT}", offline=True)[0] == folder
    with pytest.raises(ThriftbitError, match=r"tester/tiny-model has no revision 'absent'"):
        fetch(f"{REPOSITORY}@absent")


def test_an_interrupted_file_goes_on_where_it_stopped(fake_hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    def give_up(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    # The user stops while the first shard is on its way.
    fake_hub.cut_after = 70_000
    with monkeypatch.context() as patch:
        patch.setattr("thriftbit.sources.resumed_download.time.sleep", give_up)
        with pytest.raises(KeyboardInterrupt):
            fetch()
    fake_hub.cut_after = None
    begun = [(name, start, sent) for name, start, sent in fake_hub.served if name in SHARDS]
    assert begun == [(SHARDS[0], 0, 70_000)]

    fake_hub.served.clear()
    folder, said = fetch()
    assert "downloading 370 kB" in said[0]
    assert (SHARDS[0], 70_000, 130_000) in fake_hub.served
    assert contents(folder) == {name: repository_files()[name] for name in NEEDED}


def test_a_broken_connection_is_tried_again(fake_hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr("thriftbit.sources.resumed_download.time.sleep", waited.append)
    fake_hub.cut_after = 70_000  # of every connection
    assert contents(fetch()[0]) == {name: repository_files()[name] for name in NEEDED}
    starts = [start for name, start, _ in fake_hub.served if name == SHARDS[0]]
    assert starts == [0, 70_000, 140_000] and set(waited) == {1}


def test_a_server_that_sends_nothing_is_given_up(fake_hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr("thriftbit.sources.resumed_download.time.sleep", waited.append)
    fake_hub.cut_after = 0
    with pytest.raises(ThriftbitError, match=r"the download failed .* Run the same command again"):
        fetch()
    assert waited == [1, 2, 4, 8, 16]


def test_a_damaged_file_is_thrown_away_and_the_next_try_succeeds(fake_hub: FakeHub) -> None:
    sound = fake_hub.files[SHARDS[0]]
    blob = HubId(REPOSITORY).cache / "blobs" / hashlib.sha256(sound).hexdigest()
    blob.parent.mkdir(parents=True)
    blob.with_name(blob.name + ".thriftbit-partial").write_bytes(b"rotten" * 10)
    with pytest.raises(ThriftbitError, match=f"{SHARDS[0]} arrived damaged"):
        fetch()
    assert contents(fetch()[0])[SHARDS[0]] == sound


def test_a_full_disk_is_told_before_the_download(fake_hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")._replace(free=100_000)
    monkeypatch.setattr(hub.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(ThriftbitError, match=r"takes another 440 kB, and .* has 100 kB free"):
        fetch()
    assert not any(is_large(name) for name, _, _ in fake_hub.served)


def test_pickles_are_refused_before_the_download(fake_hub: FakeHub) -> None:
    fake_hub.files = {"config.json": b"{}", "pytorch_model.bin": b"pickle"}
    with pytest.raises(ThriftbitError, match=r"tester/tiny-model stores its weights as pickle \(pytorch_model\.bin\)"):
        fetch()
    assert fake_hub.served == []


def test_repositories_without_a_model_are_refused(fake_hub: FakeHub) -> None:
    fake_hub.files = {"tiny.Q8_0.gguf": b"GGUF"}
    with pytest.raises(ThriftbitError, match="has no safetensors, but GGUF files"):
        fetch()
    fake_hub.files = {"model.safetensors": b""}
    with pytest.raises(ThriftbitError, match=r"has no config\.json"):
        fetch()


def test_a_shard_that_the_hub_does_not_have_is_named(fake_hub: FakeHub) -> None:
    del fake_hub.files[SHARDS[1]]
    with pytest.raises(ThriftbitError, match=f"1 of its 2 shards missing: {SHARDS[1]}"):
        fetch()


@pytest.mark.parametrize(
    ("refusal", "reason"),
    [
        ((403, "GatedRepo"), r"is gated: accept its terms at https://huggingface\.co/tester/tiny-model"),
        ((404, "RepoNotFound"), "neither a file or folder here nor a public model on the Hub"),
        ((401, "RepoNotFound"), "for a private one, log in with `hf auth login`"),
        ((418, ""), r"the Hub refused \(418\). Try again later"),
        ((429, ""), r"the Hub refused \(429\). Wait a few minutes, or log in"),
    ],
)
def test_refusals_of_the_hub_are_one_plain_line(fake_hub: FakeHub, refusal: tuple[int, str], reason: str) -> None:
    fake_hub.refusal = refusal
    with pytest.raises(ThriftbitError, match=reason) as caught:
        fetch()
    assert "\n" not in str(caught.value)


def test_an_unreachable_hub_is_one_plain_line_or_the_cache(fake_hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, _ = fetch()
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    same, said = fetch()
    assert same == folder
    assert said[0].startswith("The Hub cannot be reached")
    with pytest.raises(ThriftbitError, match=r"other/model: the Hub cannot be reached \(.*does not have the model"):
        fetch("other/model")


def test_a_hub_that_is_down_is_replaced_by_the_cache(fake_hub: FakeHub) -> None:
    folder, _ = fetch()
    fake_hub.refusal = (503, "")
    same, said = fetch()
    assert same == folder
    assert said[0].startswith("The Hub cannot be reached (")
    assert "503" in said[0]


def test_the_endpoint_and_cache_of_the_environment_are_used(fake_hub: FakeHub, tmp_path: Path) -> None:
    """A fresh process, as a user runs it with a mirror of the Hub."""
    script = (
        "from thriftbit.sources.hub import *; import sys\n"
        "print(download(parse_hub_id(sys.argv[1]), offline=False, check=lambda folder: None))"
    )
    environment = os.environ | {"HF_ENDPOINT": fake_hub.url, "HF_HOME": str(tmp_path / "home")}
    environment.pop("HF_HUB_CACHE", None)
    done = subprocess.run(
        [sys.executable, "-c", script, REPOSITORY], env=environment, capture_output=True, text=True, check=True
    )
    folder = Path(done.stdout.splitlines()[-1])
    assert folder == tmp_path / "home" / "hub" / "models--tester--tiny-model" / "snapshots" / COMMIT
    assert contents(folder) == {name: repository_files()[name] for name in NEEDED}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("owner/name", HubId("owner/name")),
        ("HuggingFaceTB/SmolLM2-1.7B", HubId("HuggingFaceTB/SmolLM2-1.7B")),
        ("owner/name@v1.0", HubId("owner/name", "v1.0")),
        ("owner/name@refs/pr/3", HubId("owner/name", "refs/pr/3")),
        ("https://huggingface.co/owner/name", HubId("owner/name")),
        ("hf://owner/name@main", HubId("owner/name")),
        ("name", None),
        ("./owner/name", None),
        ("/owner/name", None),
        ("../owner/name", None),
        ("owner/../name", None),
        ("owner/..", None),
        ("owner/name@../../etc", None),
        ("owner/name/more", None),
        ("owner/a--b", None),
        ("C:\\models\\name", None),
        ("owner/na me", None),
        ("", None),
    ],
)
def test_hub_ids(text: str, expected: HubId | None) -> None:
    assert parse_hub_id(text) == expected


def test_the_repository_of_a_folder() -> None:
    assert repository_of(Path("/x/hub/models--owner--some-name/snapshots/0123")) == "owner/some-name"
    assert repository_of(Path("/x/models/owner/name")) is None


def test_one_gguf_of_many_is_pulled_and_goes_on_where_it_stopped(
    fake_hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    content = b"GGUF" + bytes(range(256)) * 4_000
    fake_hub.files = {"README.md": b"# a", "a-Q8_0.gguf": b"GGUF" * 9, "sub/a-Q4_K_M.gguf": content}

    def give_up(*arguments: object) -> None:
        raise KeyboardInterrupt

    fake_hub.cut_after = 300_000
    with monkeypatch.context() as patch:
        patch.setattr("thriftbit.sources.resumed_download.time.sleep", give_up)
        with pytest.raises(KeyboardInterrupt):
            pull(f"{REPOSITORY}:Q4_K_M")
    fake_hub.cut_after = None
    said: list[str] = []
    with messages_to(said.append):
        path = pull(f"{REPOSITORY}:Q4_K_M")
    assert path.read_bytes() == content and path.parts[-2:] == ("sub", "a-Q4_K_M.gguf")
    assert fake_hub.served[-1] == ("sub/a-Q4_K_M.gguf", 300_000, len(content) - 300_000)
    assert said == [f"{REPOSITORY}: downloading 724 kB of 1.02 MB into {constants.HF_HUB_CACHE}."]
    fake_hub.served.clear()
    assert pull(f"{REPOSITORY}:Q4_K_M").samefile(path) and fake_hub.served == []
    with pytest.raises(ThriftbitError, match=r"has no file b\.gguf"):
        download_files(HubId(REPOSITORY), ["b.gguf"])
