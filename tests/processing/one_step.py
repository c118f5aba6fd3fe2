"""Run one step on one value, and hold what it makes against what its type rule says."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgewright.core.tensors import Array
from edgewright.processing.step import Frame, Step
from edgewright.processing.values import Kind, ValueType, fits


def run(step: Step, *arrays: Array, kind: Kind | Sequence[Kind] = "audio", rate_hz: int = 0) -> Array:
    """Return what `step` makes of `arrays`, in a first run."""
    return runs(step, [arrays], kind=kind, rate_hz=rate_hz)[0]


def runs(
    step: Step, rows: Sequence[Sequence[Array]], *, kind: Kind | Sequence[Kind] = "audio", rate_hz: int = 0
) -> list[Array]:
    """Return what `step` makes of each of `rows`, one run after another with its state kept."""
    kinds: list[Kind] = [kind] * len(rows[0]) if isinstance(kind, str) else list(kind)  # type: ignore[list-item]
    given = tuple(
        ValueType(kind=k, shape=array.shape, dtype=str(array.dtype), rate_hz=rate_hz)
        for k, array in zip(kinds, rows[0], strict=True)
    )
    promised = step.result(given)
    frame = Frame(given=given, state=step.initial(given))
    made = []
    for arrays in rows:
        before = None if frame.state is None else frame.state.shape
        made.append(step.apply(tuple(arrays), frame))
        assert fits(
            ValueType(kind=promised.kind, shape=made[-1].shape, dtype=str(made[-1].dtype)), promised
        ), f"{promised} is promised, but {made[-1].dtype}{made[-1].shape} is made"
        assert frame.state is None or (frame.state.shape == before and frame.state.dtype == np.float32)
    return made
