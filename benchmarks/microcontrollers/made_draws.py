"""Random shapes, scales and values for generated models."""

from __future__ import annotations

import numpy as np

Draw = np.random.Generator


def scale_of(draw: Draw) -> float:
    """Return a scale between 1/2000 and 1, some of them powers of two."""
    if draw.random() < 0.2:
        return float(2.0 ** -draw.integers(2, 9))
    return float(np.exp(draw.uniform(np.log(5e-4), np.log(0.5))))


def zero_of(draw: Draw) -> int:
    """Return a zero point, the ends of the range now and then."""
    if draw.random() < 0.3:
        return int(draw.choice([-128, 0, 127]))
    return int(draw.integers(-128, 128))


def int8s(draw: Draw, shape: tuple[int, ...], low: int = -127) -> np.ndarray:
    """Return random int8."""
    return draw.integers(low, 128, shape).astype(np.int8)


def shape_of(draw: Draw, low: int = 1, high: int = 5, size: int = 6) -> tuple[int, ...]:
    """Return a random shape of `low` to `high` - 1 axes, each under `size`."""
    return tuple(int(draw.integers(1, size)) for _ in range(int(draw.integers(low, high))))
