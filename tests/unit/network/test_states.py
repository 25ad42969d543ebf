"""Hidden states on disk come back to half precision, however different tokens are in size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from thriftbit.network.states import Growing, Halves, States


def test_what_was_written_is_read(tmp_path: Path) -> None:
    vectors = torch.randn(15, 8, generator=torch.Generator().manual_seed(0))
    vectors[4] *= 1e6  # more than half precision holds
    vectors[7] = 0
    for exact, tolerance in ((False, 1e-3), (True, 0.0)):
        states = States(tmp_path / f"states-{exact}", 15, 8, exact=exact)
        states.write(9, vectors[9:])
        assert exact or not states.is_whole or states.path.stat().st_size == states.size_bytes
        states.write(0, vectors[:9] if exact else Halves.of(vectors[:9]))
        assert states.is_whole
        for first, count in ((0, 15), (3, 6), (14, 1)):
            found, expected = states.read(first, count), vectors[first : first + count]
            assert ((found - expected).abs() <= tolerance * expected.abs().amax(dim=-1, keepdim=True)).all()
        chosen = np.array([7, 3, 4, 5, 3, 14])
        torch.testing.assert_close(states.rows(chosen), torch.cat([states.read(int(n), 1) for n in chosen]))
        assert states.rows(np.empty(0, np.int64)).shape == (0, 8)


def test_they_appear_when_all_are_written(tmp_path: Path) -> None:
    growing = Growing(States(tmp_path / "states", 6, 4))
    growing.append(torch.ones(2, 2, 4))
    with pytest.raises(ValueError, match="4 of 6 tokens"):
        growing.finish()
    assert not growing.states.path.exists()
    growing.append(torch.zeros(2, 4))
    growing.finish()
    assert growing.states.is_whole and growing.states.read(3, 2).sum() == 4
