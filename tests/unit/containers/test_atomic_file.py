import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from thriftbit.containers.atomic_file import PARTIAL_SUFFIX, PIECE_BYTES, AtomicFile, abandoned_partials
from thriftbit.errors import ThriftbitError


def write(path: Path, content: bytes, *, force: bool = False) -> None:
    with AtomicFile(path, len(content), force=force) as file:
        file.write(content)


def test_file_gets_its_name_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    with AtomicFile(path, 6) as file:
        file.write(b"abc")
        assert [entry.name for entry in tmp_path.iterdir()] == ["a.gguf" + PARTIAL_SUFFIX]
        file.write(memoryview(b"def"))
    assert path.read_bytes() == b"abcdef"
    assert list(tmp_path.iterdir()) == [path]


def test_small_writes_reach_the_system_in_large_pieces(tmp_path: Path) -> None:
    content = np.random.default_rng(0).integers(0, 256, 2 * PIECE_BYTES + 12_345, np.uint8).tobytes()
    partial, sizes = tmp_path / f"a.gguf{PARTIAL_SUFFIX}", set()
    with AtomicFile(tmp_path / "a.gguf", len(content)) as file:
        for start in range(0, len(content), 70_001):
            file.write(content[start : start + 70_001])
            sizes.add(partial.stat().st_size)
    assert sizes == {0, PIECE_BYTES, 2 * PIECE_BYTES}
    assert (tmp_path / "a.gguf").read_bytes() == content
    with AtomicFile(tmp_path / "b.gguf", len(content)) as file:
        file.write(memoryview(content))
    assert (tmp_path / "b.gguf").read_bytes() == content


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_nothing_is_left_of_a_failed_run(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), AtomicFile(tmp_path / "a.gguf", 6) as file:
        file.write(b"abc")
        raise error
    assert list(tmp_path.iterdir()) == []


def test_existing_output_is_kept_unless_forced(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    path.write_bytes(b"old")
    with pytest.raises(ThriftbitError, match=r"a\.gguf: exists already; use --force"):
        write(path, b"new")
    assert path.read_bytes() == b"old"
    with pytest.raises(RuntimeError), AtomicFile(path, 3, force=True) as file:
        file.write(b"ne")
        raise RuntimeError
    assert path.read_bytes() == b"old"
    write(path, b"new", force=True)
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_output_that_appears_meanwhile_is_kept_and_ours_goes_beside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, beside = tmp_path / "a.gguf", tmp_path / "a-3.gguf"
    (tmp_path / "a-2.gguf").write_bytes(b"taken as well")
    with AtomicFile(path, 3) as file:
        file.write(b"new")
        path.write_bytes(b"somebody else's")
    assert file.path == beside and beside.read_bytes() == b"new"
    assert path.read_bytes() == b"somebody else's"
    assert {each.name for each in tmp_path.iterdir()} == {"a.gguf", "a-2.gguf", "a-3.gguf"}
    assert caplog.messages == [f"{path} appeared while this was written, and stays: the result is in {beside}"]


def test_a_folder_that_appears_meanwhile_costs_no_work_even_with_force(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    with AtomicFile(path, 3, force=True) as file:
        file.write(b"new")
        path.mkdir()
    assert (tmp_path / "a-2.gguf").read_bytes() == b"new"


def test_a_private_file_is_its_users_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"old")
    path.chmod(0o644)
    with AtomicFile(path, 3, force=True, private=True) as file:
        (partial,) = set(tmp_path.iterdir()) - {path}
        assert partial.stat().st_mode & 0o777 == 0o600
        file.write(b"new")
    assert path.stat().st_mode & 0o777 == 0o600


def test_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "a.gguf").write_bytes(b"old")
    link = tmp_path / "link.gguf"
    link.symlink_to(tmp_path / "models" / "a.gguf")
    write(link, b"new", force=True)
    assert link.is_symlink()
    assert (tmp_path / "models" / "a.gguf").read_bytes() == b"new"


def test_wrong_number_of_bytes_is_not_published(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="2 bytes were written, not 3"), AtomicFile(tmp_path / "a.gguf", 3) as file:
        file.write(b"ab")
    assert list(tmp_path.iterdir()) == []


def test_two_runs_for_one_output(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    with AtomicFile(path, 3) as first:
        first.write(b"one")
        with pytest.raises(ThriftbitError, match="another run is writing"), AtomicFile(path, 3):
            pass
    assert path.read_bytes() == b"one"


def test_free_space_is_checked_before_anything_is_written(tmp_path: Path) -> None:
    with (
        pytest.raises(ThriftbitError, match=r"needs 1153 PB, and its disk has .* free; .* are missing"),
        AtomicFile(tmp_path / "a.gguf", 1 << 60),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def test_signals_are_handed_back(tmp_path: Path) -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    write(tmp_path / "a.gguf", b"abc")
    with pytest.raises(ThriftbitError):
        write(tmp_path / "a.gguf", b"abc")
    assert {number: signal.getsignal(number) for number in before} == before


def test_signals_that_somebody_else_handles_are_left_alone(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with AtomicFile(tmp_path / "a.gguf", 0):
            assert signal.getsignal(signal.SIGTERM) is signal.default_int_handler
        assert signal.getsignal(signal.SIGTERM) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGTERM, before)


def test_outside_the_main_thread(tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as pool:
        pool.submit(write, tmp_path / "a.gguf", b"abc").result()
    assert (tmp_path / "a.gguf").read_bytes() == b"abc"


def test_the_next_run_in_a_folder_removes_what_a_killed_one_left(tmp_path: Path) -> None:
    left, written = tmp_path / f"killed.gguf{PARTIAL_SUFFIX}", tmp_path / f"other.gguf{PARTIAL_SUFFIX}"
    left.write_bytes(b"half")
    (tmp_path / f"folder{PARTIAL_SUFFIX}").mkdir()
    (tmp_path / f"link{PARTIAL_SUFFIX}").symlink_to(tmp_path / "kept")
    (tmp_path / "kept").write_bytes(b"kept")
    with AtomicFile(tmp_path / "other.gguf", 4) as other:
        assert abandoned_partials(tmp_path) == [] and not left.exists() and written.exists()
        left.write_bytes(b"half")
        assert abandoned_partials(tmp_path) == [left]
        with AtomicFile(tmp_path / "third.gguf", 4) as third:
            third.write(b"1234")
            other.write(b"1234")
    assert (tmp_path / "other.gguf").read_bytes() == (tmp_path / "third.gguf").read_bytes() == b"1234"
    assert not left.exists() and (tmp_path / "kept").read_bytes() == b"kept"
    assert (tmp_path / f"folder{PARTIAL_SUFFIX}").is_dir() and (tmp_path / f"link{PARTIAL_SUFFIX}").is_symlink()
