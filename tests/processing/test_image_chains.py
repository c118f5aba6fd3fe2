"""Random chains of image steps: each makes what its type rule says, and the geometry keeps up with the size."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from edgewright.core.errors import DataError, UsageError
from edgewright.processing.images import Channels, Crop, Layout, Normalize
from edgewright.processing.resize import Letterbox, Resize, ShortSide
from edgewright.processing.step import Frame, Geometry, Step
from edgewright.processing.tensors import Quantize
from edgewright.processing.values import image_type

CHAINS = 400


def makers(rng: np.random.Generator) -> list[Callable[[], Step]]:
    """Return functions that each make a step with random options."""

    def side() -> int:
        return int(rng.integers(1, 50))

    def flag() -> bool:
        return bool(rng.integers(2))

    def numbers() -> tuple[float, ...]:
        return (0.5,) if flag() else (0.1, 0.2, 0.3)

    def resize() -> Step:
        method = ("nearest", "bilinear", "bicubic", "area")[rng.integers(4)]
        antialias = method.startswith("bi") and flag()
        corners = ("half_pixel", "align", "asymmetric")[rng.integers(3)]
        if antialias or method == "area":
            corners = "half_pixel"
        return Resize(height=side(), width=side(), method=method, antialias=antialias, corners=corners)  # type: ignore[arg-type]

    return [
        resize,
        lambda: Channels(order=("rgb", "bgr", "grey")[rng.integers(3)]),  # type: ignore[arg-type]
        lambda: Crop(height=side(), width=side()),
        lambda: Crop(fraction=float(rng.uniform(0.01, 1)), square=flag()),
        lambda: ShortSide(size=side(), antialias=flag()),
        lambda: Letterbox(
            height=side(), width=side(), grow=flag(), anchor="centre" if flag() else "top_left", antialias=flag()
        ),
        lambda: Normalize(mean=numbers(), std=numbers()),
        lambda: Layout(layout="chw" if flag() else "hwc"),
        lambda: Quantize(scale=0.02, zero_point=3, dtype="int8"),
    ]  # fmt: skip


@pytest.mark.parametrize("seed", range(3))
def test_chains_of_steps(seed: int) -> None:
    rng = np.random.default_rng(seed)
    steps = makers(rng)
    applied = refused = 0
    for _ in range(CHAINS):
        order = ("rgb", "bgr", "grey", "rgba")[rng.integers(4)]
        height, width = (int(n) for n in rng.integers(1, 50, 2))
        is_fixed = bool(rng.integers(2))
        known = image_type(
            order, height=height if is_fixed else None, width=width if is_fixed else None  # type: ignore[arg-type]
        )  # fmt: skip
        value = rng.integers(0, 256, (height, width, known.channels), dtype=np.uint8)
        place = Geometry(source_height=height, source_width=width, height=height, width=width)
        for _ in range(rng.integers(1, 6)):
            step = steps[rng.integers(len(steps))]()
            try:
                made = step.result((known,))
                value = step.apply((value,), Frame(given=(known,)))
                place = step.move(place)
            except (UsageError, DataError):
                refused += 1
                break
            applied += 1
            assert str(value.dtype) == made.dtype and value.flags.c_contiguous
            assert len(value.shape) == len(made.shape)
            assert all(a in (None, b) for a, b in zip(made.shape, value.shape, strict=True)), (step, made)
            known = made
            assert (place.height, place.width) == (
                value.shape[1:] if made.layout == "chw" else value.shape[:2]
            )
    assert applied > CHAINS and refused > 10
