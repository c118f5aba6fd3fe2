"""The sample's two data sets as functions, as recipes name them: `edgewright.sample.data:training`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgewright.core.tensors import Array
from edgewright.sample import CALIBRATION_DATA, EVAL_DATA


def training() -> tuple[Array, Array]:
    """Return inputs float32 [1200, 1, 8, 8] in 0..1 and labels int64 [1200]: the training part."""
    return _read(CALIBRATION_DATA)


def evaluation() -> tuple[Array, Array]:
    """Return inputs float32 [597, 1, 8, 8] in 0..1 and labels int64 [597], never used in training."""
    return _read(EVAL_DATA)


def _read(path: Path) -> tuple[Array, Array]:
    with np.load(path, allow_pickle=False) as data:
        return data["inputs"], data["labels"]
