"""Export: what other programs find on disk afterwards, byte for byte, and that nothing stays behind when it fails."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import pytest
from exported_models import LLAMA_3, write_model, write_parts
from huggingface_hub import scan_cache_dir

from conftest import RunThriftbit
from thriftbit import UsageError, export
from thriftbit.errors import ThriftbitError
from thriftbit.library.inventory import take_inventory
from thriftbit.runtime.export.ollama import human_number
from thriftbit.runtime.export.transaction import COPY, HARD_LINK, REFLINK, THERE_ALREADY
from thriftbit.sizes import describe_bytes

PROGRAMS = ("ollama", "lmstudio", "llama.cpp")
VARIABLES = ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "OLLAMA_MODELS", "LLAMA_CACHE", "XDG_CACHE_HOME")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty home folder, in which alone programs keep anything; its `work` is current."""
    home = tmp_path / "home"
    (home / "work").mkdir(parents=True)
    for variable in (*VARIABLES, "XDG_CONFIG_HOME"):
        monkeypatch.delenv(variable, raising=False)
    for variable, path in {"HOME": home, "USERPROFILE": home, "THRIFTBIT_CACHE": home / "c"}.items():
        monkeypatch.setenv(variable, str(path))
    monkeypatch.setenv("THRIFTBIT_CONFIG", str(home / "config.toml"))
    monkeypatch.chdir(home / "work")
    return home


@pytest.fixture
def model(home: Path) -> Path:
    return write_model(home / "work" / "Tiny-Chat-Q4_K_M.gguf", texts={"general.license": "apache-2.0"})


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Path]:
    """Yield a folder on another disk than the others."""
    memory = Path("/dev/shm")
    if not memory.is_dir() or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is only one file system here")
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)


def files_below(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def everything_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def leftovers(folder: Path) -> list[str]:
    return [name for name in everything_below(folder) if ".thriftbit-" in name]


def read_ollama(home: Path, name: str) -> dict[str, Any]:
    """Return the contents of a model's blobs by their roles, proven to be what the manifest says."""
    models = home / ".ollama" / "models"
    manifest = json.loads((models / "manifests" / "registry.ollama.ai" / name).read_bytes())
    assert manifest["schemaVersion"] == 2
    assert manifest["mediaType"] == "application/vnd.docker.distribution.manifest.v2+json"
    assert manifest["config"]["mediaType"] == "application/vnd.docker.container.image.v1+json"
    contents = {}
    for layer in (manifest["config"], *manifest["layers"]):
        content = (models / "blobs" / layer["digest"].replace(":", "-")).read_bytes()
        assert layer["digest"] == f"sha256:{hashlib.sha256(content).hexdigest()}"
        assert layer["size"] == len(content)
        contents[layer["mediaType"].rpartition(".")[2]] = content
    return contents


def test_what_ollama_finds(home: Path, model: Path) -> None:
    done = export(model, "ollama")
    assert (done.name, done.command) == ("tiny-chat:q4_k_m", "ollama run tiny-chat:q4_k_m")
    contents = read_ollama(home, "library/tiny-chat/q4_k_m")
    config = json.loads(contents.pop("v1+json"))
    digests = config.pop("rootfs")
    assert digests["type"] == "layers" and len(digests["diff_ids"]) == 4
    assert config == {
        "model_format": "gguf",
        "model_family": "llama",
        "model_families": ["llama"],
        "model_type": "19K",
        "file_type": "Q4_K_M",
        "architecture": "amd64",
        "os": "linux",
    }
    assert contents.pop("model") == model.read_bytes()
    assert json.loads(contents.pop("params")) == {"stop": ["</s>", "<|im_end|>", "<|im_start|>"]}
    assert contents.pop("license") == b"apache-2.0"
    assert contents.pop("template").startswith(b"{{ $last")
    assert not contents


def test_sampling_and_licence_are_the_files(home: Path) -> None:
    texts = {"general.license": "other", "general.license.name": "Tiny", "general.license.link": "https://example.org"}
    numbers = {"general.sampling.temp": 0.6, "general.sampling.top_k": 20, "general.sampling.top_p": 0.95}
    export(write_model(home / "a-Q8_0.gguf", texts=texts, numbers=numbers), "ollama")
    contents = read_ollama(home, "library/a/q8_0")
    assert contents["license"] == b"other\nTiny\nhttps://example.org"
    params = json.loads(contents["params"])
    assert {key: params[key] for key in params if key != "stop"} == {"temperature": 0.6, "top_k": 20, "top_p": 0.95}


@pytest.mark.parametrize("program", PROGRAMS)
def test_nothing_is_copied_and_removing_theirs_leaves_ours(home: Path, model: Path, program: str) -> None:
    before = model.read_bytes()
    done = export(model, program)
    assert done.way in (HARD_LINK, REFLINK)
    weights = done.placed[0].path
    if done.way == HARD_LINK:
        assert weights.samefile(model)
    assert weights.read_bytes() == before
    weights.unlink()
    assert model.read_bytes() == before


@pytest.mark.parametrize(
    ("program", "place", "name"),
    [
        ("ollama", "Ollama", "tiny-chat:q4_k_m"),
        ("lmstudio", "LM Studio", "thriftbit/Tiny-Chat-GGUF/Tiny-Chat-Q4_K_M.gguf"),
        ("llama.cpp", "Hugging Face", "thriftbit/Tiny-Chat-GGUF/Tiny-Chat-Q4_K_M.gguf"),
    ],
)
def test_find_lists_what_was_exported(home: Path, model: Path, program: str, place: str, name: str) -> None:
    label = take_inventory().models[0].label
    done = export(model, program)
    model.unlink()
    (found,) = take_inventory().models
    assert (found.place, found.name, found.label) == (place, name, label)
    assert found.path == done.placed[0].path


def test_the_hubs_own_library_finds_nothing_wrong_with_llama_cpps_folder(home: Path, model: Path) -> None:
    export(model, "llama.cpp")
    export(write_model(home / "work" / "Tiny-Chat-Q8_0.gguf", seed=1), "llama.cpp")
    cache = scan_cache_dir(home / ".cache" / "huggingface" / "hub")
    assert not cache.warnings
    (repository,) = cache.repos
    (revision,) = repository.revisions
    assert (repository.repo_id, revision.refs) == ("thriftbit/Tiny-Chat-GGUF", frozenset({"main"}))
    assert {file.file_name for file in revision.files} == {"Tiny-Chat-Q4_K_M.gguf", "Tiny-Chat-Q8_0.gguf"}


def test_llama_cpp_is_told_which_file(home: Path, model: Path) -> None:
    assert export(model, "llama.cpp").command == "llama-server -hf thriftbit/Tiny-Chat-GGUF:Q4_K_M --offline"
    unnamed = write_model(home / "work" / "tiny.gguf", seed=1)
    assert export(unnamed, "llama.cpp").command == "llama-server -hf thriftbit/tiny-GGUF -hff tiny.gguf --offline"


def test_llama_cpps_folder_is_looked_for_where_it_looks(
    home: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, below in (("XDG_CACHE_HOME", "huggingface/hub"), ("HF_HOME", "hub"), ("LLAMA_CACHE", ".")):
        monkeypatch.setenv(variable, str(tmp_path / variable))
        assert export(model, "llama.cpp", dry_run=True).folder == (tmp_path / variable / below)


def test_what_was_downloaded_from_the_hub_is_not_added_to(home: Path, model: Path) -> None:
    reference = home / ".cache" / "huggingface" / "hub" / "models--owner--name" / "refs" / "main"
    reference.parent.mkdir(parents=True)
    reference.write_text("0" * 40)
    with pytest.raises(ThriftbitError, match="downloaded from the Hub"):
        export(model, "llama.cpp", name="owner/name", force=True)


def test_lm_studios_folder_is_where_its_settings_say(home: Path, model: Path, tmp_path: Path) -> None:
    assert export(model, "lmstudio", dry_run=True).folder == home / ".lmstudio" / "models"
    (home / ".cache" / "lm-studio").mkdir(parents=True)
    assert export(model, "lmstudio", dry_run=True).folder == home / ".cache" / "lm-studio" / "models"
    (home / ".lmstudio").mkdir()
    (home / ".lmstudio" / "settings.json").write_text(json.dumps({"downloadsFolder": str(tmp_path / "big")}))
    done = export(model, "lmstudio", name="me/tiny")
    assert done.marker == tmp_path / "big" / "me" / "tiny" / "Tiny-Chat-Q4_K_M.gguf"
    (home / ".lmstudio" / "settings.json").write_text("not JSON")
    assert export(model, "lmstudio", dry_run=True).folder == home / ".lmstudio" / "models"


def test_ollamas_folder_is_where_its_variable_says(
    home: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "models"))
    assert export(model, "ollama").folder == tmp_path / "models"
    elsewhere = export(model, "ollama", folder=tmp_path / "more")
    assert any(f"OLLAMA_MODELS={tmp_path / 'more'}" in note for note in elsewhere.notes)


def test_a_file_on_another_disk_is_copied_and_the_size_is_told_first(
    home: Path, model: Path, elsewhere: Path, told: list[str]
) -> None:
    assert export(model, "ollama", folder=elsewhere, dry_run=True).way == COPY
    done = export(model, "ollama", folder=elsewhere)
    assert done.way == COPY
    assert done.placed[0].path.read_bytes() == model.read_bytes()
    assert told == [
        f"Copying {describe_bytes(model.stat().st_size)} to {elsewhere / 'blobs'}: it is on another disk than the file."
    ]


@pytest.mark.parametrize("program", PROGRAMS)
def test_interrupting_a_copy_leaves_nothing(home: Path, model: Path, elsewhere: Path, program: str) -> None:
    def interrupt(what: str, fraction: float) -> None:
        if what.startswith("copying"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(model, program, folder=elsewhere, progress=interrupt)
    assert everything_below(elsewhere) == set()


def test_a_failure_at_the_last_step_leaves_nothing(home: Path, model: Path) -> None:
    export(write_model(home / "other-Q8_0.gguf", seed=3), "ollama")
    models = home / ".ollama" / "models"
    (models / "manifests/registry.ollama.ai/library/tiny-chat/q4_k_m.thriftbit-partial").mkdir(parents=True)
    before = everything_below(models)
    with pytest.raises(ThriftbitError, match="q4_k_m"):
        export(model, "ollama")
    assert everything_below(models) == before


@pytest.mark.parametrize("program", ["lmstudio", "llama.cpp"])
def test_a_failure_while_replacing_brings_the_old_files_back(home: Path, program: str) -> None:
    old = write_parts(home / "old")
    first, second = (each.path for each in export(old[0], program).placed[:2])
    before = second.read_bytes()
    new = write_parts(home / "new", value=7)
    first.unlink()
    first.mkdir()  # the first part is placed last, and cannot be where a folder is
    with pytest.raises(ThriftbitError, match="is a folder"):
        export(new[0], program, force=True)
    assert second.read_bytes() == before != new[1].read_bytes()
    assert not leftovers(second.parent)


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_name_that_is_taken_is_kept_without_force(home: Path, model: Path, program: str) -> None:
    done = export(model, program)
    folder = home / "again"
    other = write_model(folder / model.name, LLAMA_3, seed=5)
    before = files_below(done.folder)
    with pytest.raises(ThriftbitError, match=r"already.*--force"):
        export(other, program)
    assert files_below(done.folder) == before
    export(other, program, force=True)
    found = [found.path for found in take_inventory().models if found.place != "this folder"]
    assert [path.read_bytes() for path in found] == [other.read_bytes()]
    assert not leftovers(done.folder)


def test_ollamas_names_are_the_same_in_any_case(home: Path, model: Path) -> None:
    export(model, "ollama", name="Tiny:Small")
    with pytest.raises(ThriftbitError, match="already"):
        export(model, "ollama", name="tiny:SMALL")
    done = export(model, "ollama", name="tiny:other")
    assert done.marker.parent.name == "Tiny"
    assert done.placed[0].way == THERE_ALREADY


def test_a_failure_while_replacing_leaves_ollama_the_model_that_it_had(home: Path, model: Path) -> None:
    done = export(model, "ollama")
    before = files_below(done.folder)
    other = write_model(home / "again" / model.name, LLAMA_3, seed=5)
    (done.marker.parent / f"{done.marker.name}.thriftbit-partial").mkdir()
    with pytest.raises(ThriftbitError):
        export(other, "ollama", force=True)
    assert files_below(done.folder) == before


def test_a_damaged_blob_is_made_whole(home: Path, model: Path) -> None:
    blob = export(model, "ollama").placed[0].path
    blob.unlink()
    blob.write_bytes(b"GGUF, and then the disk was full")
    export(model, "ollama", name="again")
    assert blob.read_bytes() == model.read_bytes()


def test_a_model_in_parts(home: Path) -> None:
    first, second = write_parts(home / "work")
    with pytest.raises(ThriftbitError, match="llama-gguf-split --merge"):
        export(first, "ollama")
    for program in ("lmstudio", "llama.cpp"):
        done = export(second, program)
        assert [each.path.name for each in done.placed[:2]] == [first.name, second.name]
        assert [each.path.read_bytes() for each in done.placed[:2]] == [first.read_bytes(), second.read_bytes()]
        assert done.size_bytes == first.stat().st_size + second.stat().st_size


@pytest.mark.parametrize("program", PROGRAMS)
def test_what_llama_cpp_does_not_load_is_refused(home: Path, program: str) -> None:
    refused = {
        "does not know the architecture 'brandnew'": write_model(home / "a.gguf", architecture="brandnew"),
        "for intermediate results only": write_model(home / "b.gguf", tensor_type=gguf.GGMLQuantizationType.Q8_K),
        "picture or sound part": write_model(home / "c.gguf", architecture="clip"),
        "adapter": write_model(home / "d.gguf", texts={"general.type": "adapter"}),
        "is a folder": home,
        "No such file|does not exist|no such file": home / "missing.gguf",
    }
    for reason, path in refused.items():
        with pytest.raises(ThriftbitError, match=reason):
            export(path, program)
    assert not (home / ".ollama").exists() and not (home / ".lmstudio").exists() and not (home / ".cache").exists()


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_dry_run_changes_nothing(home: Path, model: Path, program: str) -> None:
    before = everything_below(home)
    dry = export(model, program, dry_run=True)
    assert everything_below(home) == before
    done = export(model, program)
    assert (dry.name, dry.folder, dry.marker, dry.command) == (done.name, done.folder, done.marker, done.command)
    assert not dry.placed


def test_a_link_in_the_hubs_cache_is_followed(home: Path, model: Path) -> None:
    blob = home / "blobs" / ("0" * 64)
    blob.parent.mkdir()
    model.rename(blob)
    model.symlink_to(os.path.relpath(blob, model.parent))
    done = export(model, "lmstudio")
    assert done.marker.name == model.name
    assert not done.marker.is_symlink() and done.marker.read_bytes() == blob.read_bytes()


def test_numbers_of_parameters_as_ollama_writes_them() -> None:
    # Ollama's own table: format/format_test.go
    expected = {0: "0", 999: "999", 1000: "1K", 26_000_000: "26M", 26_500_000: "26.50M", 206_000_000: "206M"}
    expected |= {1_000_000_000: "1B", 1_500_000_000: "1.5B", 137_000_000_000: "137B", 134_515_008: "134.52M"}
    assert {count: human_number(count) for count in expected} == expected


NO_NAMES = ("", "a b", "../a", "a/../b", "a/b/c", "-a", "a\n", "/", "a/")


@pytest.mark.parametrize(
    ("program", "name"),
    [
        *((program, name) for program in PROGRAMS for name in NO_NAMES),
        *(("ollama", name) for name in (":tag", "a:", "a:b:c", "é", "x" * 81, "a.b/c")),
        *(("lmstudio", name) for name in ("a:b", "é", "x" * 81)),
        *(("llama.cpp", name) for name in ("a:b", "é", "x" * 97, "a--b", "a.-b", "a.")),
    ],
)
def test_names_that_programs_do_not_take(home: Path, model: Path, program: str, name: str) -> None:
    before = everything_below(home)
    with pytest.raises(UsageError, match="--name"):
        export(model, program, name=name)
    assert everything_below(home) == before


def test_the_command(home: Path, model: Path, run_thriftbit: RunThriftbit) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return run_thriftbit("export", model, "--to", *arguments, HOME=str(home), USERPROFILE=str(home))

    done = run("ollama", "--name", "tiny", "--json")
    document = json.loads(done.stdout)
    assert (done.returncode, document["name"], document["way"]) == (0, "tiny:latest", document["placed"][0]["way"])
    assert document["details"]["parameters"]["stop"] == ["</s>", "<|im_end|>", "<|im_start|>"]
    again = run("ollama", "--name", "tiny")
    assert again.returncode == 1 and "--force" in again.stderr and again.stderr.count("\n") == 1
    assert run("ollama", "--name", "a b").returncode == 2
    assert run("jan").returncode == 2
    shown = run("lmstudio")
    assert shown.returncode == 0 and "takes no space of its own" in shown.stdout and "lms load" in shown.stdout
    assert (home / ".lmstudio").is_dir()
