"""Any options on any values: refused with a UsageError, or what the type rule promises; and the same from the file."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from tests.processing.one_step import runs

from edgewright.core.errors import UsageError
from edgewright.core.options import option_fields
from edgewright.processing.registry import STEPS, read_step, step_class, step_record
from edgewright.processing.values import ValueType

_MODULES = ("audio", "spectrum", "mel", "pcan", "series", "landmarks", "smoothing", "ctc")
NAMES = sorted(name for name, place in STEPS.items() if place.partition(":")[0] in _MODULES)
_NUMBERS = st.sampled_from([-(2**31), -1, 0, 1, 2, 3, 4, 8, 10, 30, 16_000, 2**16, 2**26, 2**31])
_FRACTIONS = st.sampled_from([-1e30, -0.5, 0.0, 1e-30, 0.05, 0.5, 1.0, 80.0, 4000.0, 1e30])
KINDS = st.sampled_from(["audio", "frames", "spectrum", "series", "landmarks", "tensor"])
SHAPES = st.lists(st.sampled_from([0, 1, 2, 3, 5, 8, 30, 61]), min_size=1, max_size=3)


@st.composite
def records(draw: st.DrawFn, name: str) -> dict[str, object]:
    """Return a step's table in which some options are given."""
    record: dict[str, object] = {"step": name}
    for option in option_fields(step_class(name)):
        if option.default and draw(st.booleans()):
            continue
        choices = {"whole number": _NUMBERS, "number": _FRACTIONS, "true or false": st.booleans()}
        if option.kind in choices:
            record[option.name] = draw(choices[option.kind])
        elif " or " in option.kind:
            words = st.sampled_from(option.kind.split(" or "))
            record[option.name] = draw(words.map(lambda word: int(word) if word.isdigit() else word))
    return record


@pytest.mark.parametrize("name", NAMES)
@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow]
)
@given(data=st.data())
def test_any_options_on_any_values(name: str, data: st.DataObject) -> None:
    record = data.draw(records(name))
    try:
        step = read_step(record, what="it")
    except UsageError:
        return
    assert read_step(step_record(step), what="it") == step
    kinds = [data.draw(KINDS) for _ in range(step.count[0])]
    shape = data.draw(SHAPES)
    # What the other steps and raw inputs keep: sound has one axis, frames two, a spectrum's last holds two numbers.
    if "audio" in kinds or "frames" in kinds:
        shape = [*shape, 3][: 1 if "audio" in kinds else 2]
        kinds = ["audio" if "audio" in kinds else "frames"] * len(kinds)
    elif "spectrum" in kinds:
        shape = [*shape, 2]
    rate_hz = data.draw(st.sampled_from([0, 8000, 16_000, 44_100]))
    try:
        made = step.result(
            tuple(
                ValueType(kind=kind, shape=tuple(shape), dtype="float32", rate_hz=rate_hz) for kind in kinds
            )
        )
    except UsageError:
        return
    assume(np.prod(made.shape, dtype=np.float64) < 1e6 if None not in made.shape else True)
    assume(getattr(step, "samples", 0) < 1e6)
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(shape).astype(np.float32) for _ in kinds]
    # The helper holds what is made against the type rule.
    first, second = runs(step, [arrays, arrays], kind=kinds, rate_hz=rate_hz)
    assert np.isfinite(first).all() and np.isfinite(second).all()


@pytest.mark.parametrize(
    ("record", "shape"),
    [
        ({"step": "mel", "bins": 1024}, (32_769,)),
        ({"step": "smooth", "runs": 10_000, "hold": 10_000}, (1000,)),
        ({"step": "context", "samples": 1 << 26}, (None, 100)),
        ({"step": "frame", "length": 1 << 16, "hop": 1}, (1 << 20,)),
        ({"step": "fft", "size": 1 << 16}, (1 << 20, 1)),
    ],
)
def test_tables_and_states_that_would_fill_the_memory_are_refused(
    record: dict[str, object], shape: tuple[int | None, ...]
) -> None:
    kind = {"frame": "audio", "fft": "frames"}.get(str(record["step"]), "tensor")
    given = ValueType(kind=kind, shape=shape, dtype="float32", rate_hz=48_000)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="at most"):
        read_step(record, what="it").result((given,))
