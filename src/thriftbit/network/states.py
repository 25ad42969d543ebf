"""Hidden states of a whole text on disk, so that memory need not hold them for every layer."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch


class StatesOnDisk:
    """path: of the file that gets them. shape: (texts, length, width). In half precision with a scale for every token,
    since some tokens are huge. Read and written by range, not mapped, so that pages do not pile up."""

    def __init__(self, path: Path, shape: tuple[int, ...]) -> None:
        self._path, self._text_shape = path, shape[1:]
        self._scales = np.zeros(shape[:-1], np.float32)
        path.touch(0o600)  # a text can be guessed from what the layers make of it

    def write(self, first: int, states: torch.Tensor) -> None:
        """states: float32 (texts, length, width), of the texts from `first` on"""
        scale = states.abs().amax(dim=-1, keepdim=True).clamp(min=1e-30)
        self._scales[first : first + len(states)] = scale[..., 0].cpu().numpy()
        with self._path.open("r+b") as file:
            file.seek(2 * first * math.prod(self._text_shape))
            (states / scale).to(torch.float16).cpu().numpy().tofile(file)

    def read(self, first: int, count: int) -> torch.Tensor:
        """-> float32 (count, length, width): of the texts from `first` on"""
        size = math.prod(self._text_shape)
        values = np.fromfile(self._path, np.float16, count * size, offset=2 * first * size).astype(np.float32)
        scales = torch.from_numpy(self._scales[first : first + count].copy())
        return torch.from_numpy(values.reshape(count, *self._text_shape)) * scales[..., None]
