"""The demo's sample: a small trained CNN and the handwritten digits it was trained and evaluated on.

Only names and paths live here, so that importing this package loads no vendor library. README.md in this
folder states the data's origin and licence; `python -m edgewright.sample.train` rebuilds every file.
"""

from pathlib import Path

_FOLDER = Path(__file__).resolve().parent

MODEL = "edgewright.sample.digits:create"
"""The factory of the untrained network, as `edgewright build` takes it."""

WEIGHTS: Path = _FOLDER / "digits.safetensors"
"""Trained float32 weights for `MODEL`."""

EVAL_DATA: Path = _FOLDER / "digits_eval.npz"
"""`inputs` float32 [597, 1, 8, 8] in 0..1 and `labels` int64 [597]; never used in training."""

CALIBRATION_DATA: Path = _FOLDER / "digits_train.npz"
"""`inputs` float32 [1200, 1, 8, 8] in 0..1 and `labels` int64 [1200]: the training part."""

INPUT_SHAPE: tuple[int, ...] = (1, 1, 8, 8)
"""One grey image: batch, channel, height, width."""
