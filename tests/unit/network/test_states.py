"""Hidden states on disk come back to half precision, however different tokens are in size."""

from __future__ import annotations

from pathlib import Path

import torch

from thriftbit.network.states import StatesOnDisk


def test_what_was_written_is_read(tmp_path: Path) -> None:
    states = torch.randn(5, 3, 8, generator=torch.Generator().manual_seed(0))
    states[1, 2] *= 1e6  # more than half precision holds
    states[2, 0] = 0
    disk = StatesOnDisk(tmp_path / "states", (5, 3, 8))
    disk.write(3, states[3:])
    disk.write(0, states[:3])
    for first, count in ((0, 5), (1, 2), (4, 1)):
        found, expected = disk.read(first, count), states[first : first + count]
        assert (found - expected).abs().max() <= 1e-3 * expected.abs().max()
        assert ((found - expected).abs() <= 1e-3 * expected.abs().amax(dim=-1, keepdim=True)).all()
    assert (tmp_path / "states").stat().st_size == 2 * states.numel()
