"""Too little memory: the same result in smaller pieces, or a sentence. Real allocations against a real limit."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import ROOT

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")

LIMITED = """
import json, resource, sys
import numpy as np, psutil, torch
from pathlib import Path
from thriftbit import open_model
from thriftbit.errors import ThriftbitError
from thriftbit.network.batches import in_batches
from thriftbit.quantization import calibration as module

torch.set_num_threads(1)
def leave(megabytes):
    used = psutil.Process().memory_info().vms
    resource.setrlimit(resource.RLIMIT_AS, (used + (megabytes << 20), resource.RLIM_INFINITY))
"""


def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", LIMITED + code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.parametrize(
    "allocate", ["torch.empty(tokens << 20, dtype=torch.uint8)", "np.empty(tokens << 20, np.uint8)"]
)
def test_half_as_much_is_tried_until_it_fits(allocate: str) -> None:
    ended = run(f"""
tried = []
def compute(tokens):
    tried.append(tokens)
    return len({allocate}) >> 20
leave(600)
print(json.dumps([in_batches(compute, "trying"), tried]))
""")
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout) == [512, [1024, 512]]


def test_what_never_fits_is_said_and_other_errors_are_not_mistaken_for_it() -> None:
    ended = run("""
leave(20)
try:
    in_batches(lambda tokens: torch.empty(1 << 30), "calibrating a model")
except ThriftbitError as error:
    print(error)
try:
    in_batches(lambda tokens: torch.ones(2) @ torch.ones(3), "calibrating a model")
except RuntimeError as error:
    print(type(error).__name__)
""")
    assert ended.returncode == 0, ended.stderr
    said, other = ended.stdout.splitlines()
    assert said.startswith("calibrating a model: there is not enough memory, with ")
    assert other == "RuntimeError"


def test_calibrating_where_it_does_not_fit_leaves_nothing_that_looks_finished(tmp_path: Path) -> None:
    """The model is real, and so is the refusal: a layer's moments alone are more than is left."""
    ended = run(
        """
model = open_model(sys.argv[1])
windows = np.random.default_rng(0).integers(0, 4000, (8, 512))
folder = Path(sys.argv[2])
real = module.pass_backward
def backward(task):
    leave(1)
    return real(task)
module.pass_backward = backward
try:
    module.calibrate_windows(model, windows, folder)
except ThriftbitError as error:
    print(error)
    print((folder / module.INDEX).exists())
""",
        str(ROOT / "src" / "thriftbit" / "demo_model"),
        str(tmp_path / "calibration"),
    )
    assert ended.returncode == 0, ended.stderr
    said, left = ended.stdout.splitlines()
    assert said.startswith("calibrating ") and "there is not enough memory" in said
    assert left == "False"
