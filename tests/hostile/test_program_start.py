"""The program's first moments and its standard streams: closed, full, gone, and Ctrl-C before anything is loaded."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

OURS = [sys.executable, "-P", "-m", "thriftbit"]
unix = pytest.mark.skipif(os.name == "nt", reason="signals and descriptors of Unix")


def in_shell(
    line: str, environment: dict[str, str], folder: Path, **more: str | None
) -> subprocess.CompletedProcess[str]:
    changed = {name: value for name, value in (environment | more).items() if value is not None}
    command = " ".join(OURS).replace(sys.executable, f"'{sys.executable}'")
    return subprocess.run(
        ["bash", "-c", line.replace("thriftbit", command)], cwd=folder, env=changed, capture_output=True, text=True
    )


@unix
@pytest.mark.parametrize("streams", [">&-", "2>&-", "<&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_obstacle(streams: str, thriftbit_environment: dict[str, str], tmp_path: Path) -> None:
    result = in_shell(f"thriftbit explain Q4_K_M {streams}", thriftbit_environment, tmp_path)
    assert result.returncode == 0 and "Traceback" not in result.stderr
    assert ("4 bits" in result.stdout) == (">&-" not in streams.replace("2>&-", ""))


@unix
def test_a_file_does_not_get_what_is_printed_in_the_place_of_a_closed_stream(
    thriftbit_environment: dict[str, str], tmp_path: Path, tiny_llama: Path
) -> None:
    line = f"thriftbit quantize '{tiny_llama}' --to Q8_0 -o a.gguf >&- 2>&-"
    assert in_shell(line, thriftbit_environment, tmp_path).returncode == 0
    assert in_shell(line.replace("a.gguf >&- 2>&-", "b.gguf"), thriftbit_environment, tmp_path).returncode == 0
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("arguments", ["explain Q4_K_M", "explain Q4_K_M --json", "--help"])
def test_a_full_output_is_told_in_a_line(arguments: str, thriftbit_environment: dict[str, str], tmp_path: Path) -> None:
    result = in_shell(f"thriftbit {arguments} > /dev/full", thriftbit_environment, tmp_path)
    assert result.returncode == 1
    assert "error: the output cannot be written: No space left on device" in result.stderr
    assert "Traceback" not in result.stderr and "Exception" not in result.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_errors_that_nobody_can_be_told_keep_their_exit_code(
    thriftbit_environment: dict[str, str], tmp_path: Path
) -> None:
    for arguments in ("inspect nothing", "explain nonsense --json > /dev/full"):
        told, untold = (
            in_shell(f"thriftbit {arguments} {more}", thriftbit_environment, tmp_path) for more in ("", "2> /dev/full")
        )
        assert told.returncode == untold.returncode != 0
        assert "Traceback" not in told.stderr


@unix
@pytest.mark.parametrize("arguments", ["explain Q4_K_M", "explain Q4_K_M --json"])
def test_a_reader_that_goes_away_is_no_error(
    arguments: str, thriftbit_environment: dict[str, str], tmp_path: Path
) -> None:
    result = in_shell(f"thriftbit {arguments} | true", thriftbit_environment, tmp_path)
    assert result.stderr == ""


@unix
@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0 or not shutil.which("setpriv"), reason="takes root and setpriv"
)
@pytest.mark.parametrize("arguments", ["explain Q4_K_M", "find --local", "inspect nothing", "fit nothing"])
def test_without_a_home_or_a_name(arguments: str, thriftbit_environment: dict[str, str], tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    kept = ("XDG_", "HOME", "THRIFTBIT_")
    environment = {name: value for name, value in thriftbit_environment.items() if not name.startswith(kept)}
    command = ["setpriv", "--reuid", "54321", "--clear-groups", *OURS, *arguments.split()]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (result.returncode == 0) == ("nothing" not in arguments), result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "~").exists()


@unix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_in_the_first_moments(
    number: signal.Signals, thriftbit_environment: dict[str, str], tmp_path: Path
) -> None:
    code = "import enum, os, signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); print(flush=True); "
    code += "from thriftbit.__main__ import main; sys.argv = ['thriftbit', 'explain', 'Q4_K_M']; main()"
    codes = set()
    for step in range(8):
        with subprocess.Popen(
            [sys.executable, "-P", "-c", code],
            env=thriftbit_environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(0.03 + 0.06 * step)
            process.send_signal(number)
            _, errors = process.communicate(timeout=60)
        assert "Traceback" not in errors and "KeyboardInterrupt" not in errors, errors
        codes.add(process.returncode)
    assert codes <= {0, 130, -int(number)}
