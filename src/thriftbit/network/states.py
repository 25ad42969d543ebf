"""Hidden states of a whole text on disk, so that memory need not hold them for every layer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch


class StatesOnDisk:
    """path: of the file that gets them. shape: (texts, length, width). In half precision with a scale for every token,
    since some tokens are huge."""

    def __init__(self, path: Path, shape: tuple[int, ...]) -> None:
        self._values = np.lib.format.open_memmap(path, "w+", np.float16, shape)
        self._scales = np.zeros(shape[:-1], np.float32)

    def write(self, first: int, states: torch.Tensor) -> None:
        """states: float32 (texts, length, width), of the texts from `first` on"""
        scale = states.abs().amax(dim=-1, keepdim=True).clamp(min=1e-30)
        self._values[first : first + len(states)] = (states / scale).to(torch.float16).cpu().numpy()
        self._scales[first : first + len(states)] = scale[..., 0].cpu().numpy()

    def read(self, first: int, count: int) -> torch.Tensor:
        """-> float32 (count, length, width): of the texts from `first` on"""
        values = torch.from_numpy(self._values[first : first + count].astype(np.float32))
        return values * torch.from_numpy(self._scales[first : first + count].copy())[..., None]
