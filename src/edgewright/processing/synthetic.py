"""Raw inputs that are made up: where there is no file, and nothing depends on what an input shows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgewright.core.errors import UsageError
from edgewright.core.tensors import Array
from edgewright.processing.planning import Plan
from edgewright.processing.specification import RawInput
from edgewright.processing.streaming import stream_input


def synthetic_shape(
    row: RawInput,
    checked: Plan,
    *,
    sides: tuple[int, int],
    hops: int = 1,
    seconds: float = 1.0,
    rows: int = 24,
) -> tuple[int, ...]:
    """Return the shape of a made-up array for the input `row`.

    Args:
        sides: height and width of an image whose size is open.
        hops: of a stream.
        seconds: of sound whose length is open.
        rows: of any other size that is open.
    Raises:
        UsageError: the input is a text.
    """
    have = checked.types[row.name]
    if row.kind == "text":
        raise UsageError(
            f"input {row.name!r} is a text, which the C core does not take: it has no tokenizer."
        )
    if row.kind == "image":
        return (row.height or sides[0], row.width or sides[1], have.channels)
    if stream_input(checked) is not None:
        return (row.samples * hops,)
    if row.kind == "audio" and have.shape[0] is None:
        return (int(seconds * (row.rate_hz or 16_000)),)
    return tuple(rows if size is None else size for size in have.shape)


def synthetic_raw(row: RawInput, seed: int, shape: Sequence[int]) -> Array:
    """Return an input that looks like none of nature and hides no error: every channel and every corner differs.

    Args:
        row: of kind image, audio, series, landmarks or tensor.
        shape: of the array.
    """
    generator = np.random.default_rng(seed)
    if row.kind == "image":
        height, width = shape[:2]
        down, across = np.mgrid[0:height, 0:width]
        planes = [
            127.5
            + 110
            * np.sin(down / (5.0 + 3 * channel) + channel)
            * np.cos(across / (7.0 + 2 * channel) - channel)
            for channel in range(shape[2])
        ]
        noise = generator.integers(-17, 18, size=tuple(shape))
        return np.clip(np.stack(planes, axis=-1) + noise, 0, 255).astype(np.uint8)
    if row.kind == "audio":
        time = np.arange(shape[0]) / (row.rate_hz or 16_000)
        tone = sum(0.2 / n * np.sin(2 * np.pi * 180 * n * time * (1 + 0.05 * time)) for n in range(1, 6))
        return (tone + 0.01 * generator.standard_normal(shape[0])).astype(np.float32)
    if row.dtype == "float32":
        return generator.standard_normal(tuple(shape)).astype(np.float32)
    return generator.integers(0, 100, size=tuple(shape)).astype(row.dtype)
