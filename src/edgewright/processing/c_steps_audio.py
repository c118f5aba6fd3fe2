"""C of the steps on samples."""

from __future__ import annotations

import math

import numpy as np

from edgewright.processing.audio import (
    Context,
    FitLength,
    Peak,
    PreEmphasis,
    Resample,
    ratio,
    resample_filter,
)
from edgewright.processing.c_site import CValue, Site
from edgewright.processing.c_text import c_float
from edgewright.processing.spectrum import Cut, OverlapAdd
from edgewright.processing.step import Step
from edgewright.processing.values import ValueType

_FILE = "ew_audio"
_PADS = {"zeros": "EW_PAD_ZEROS", "reflect": "EW_PAD_REFLECT", "edge": "EW_PAD_EDGE"}


def rows_of(value: CValue) -> str:
    """Return the size of the first axis as C."""
    return value.rows or str(value.bound[0])


def resample(site: Site, step: Step, given: tuple[CValue, ...], made: ValueType) -> CValue:
    """Make the C of "resample"."""
    assert isinstance(step, Resample)
    (have,) = given
    up, down = ratio(have.type.rate_hz, step.rate_hz)
    if up == down:
        return site.alias(have, made)
    weights = resample_filter(up, down)
    most = -(-have.bound[0] * up // down)
    rows = ""
    if have.rows:
        rows = site.length()
        site.call(f"{rows} = ew_resampled", have.rows, up, down, file=_FILE)
    value = site.value(made, rows=rows, bound=(most,))
    site.call(
        "ew_resample_audio",
        have,
        rows_of(have),
        value,
        up,
        down,
        site.floats(weights),
        weights.shape[1],
        file=_FILE,
    )
    return value


def fit_length(site: Site, step: Step, given: tuple[CValue, ...], made: ValueType) -> CValue:
    """Make the C of "fit_length"."""
    assert isinstance(step, FitLength)
    (have,) = given
    value = site.value(made)
    row = math.prod(have.bound[1:]) * have.item_bytes
    at = ("start", "centre", "end").index(step.at)
    site.call("ew_fit_length", have, rows_of(have), value, step.samples, row, at, file=_FILE)
    return value


def pre_emphasis(site: Site, step: Step, given: tuple[CValue, ...], made: ValueType) -> CValue:
    """Make the C of "pre_emphasis"."""
    assert isinstance(step, PreEmphasis)
    (have,) = given
    value = site.value(made, have)
    rows, length = (rows_of(have), str(have.bound[1])) if len(have.bound) == 2 else ("1", rows_of(have))
    repeats = int(step.first == "repeat")
    site.call("ew_pre_emphasis", have, value, rows, length, c_float(step.factor), repeats, file=_FILE)
    return value


def peak(site: Site, step: Step, given: tuple[CValue, ...], made: ValueType) -> CValue:
    """Make the C of "peak"."""
    assert isinstance(step, Peak)
    (have,) = given
    value = site.value(made, have)
    site.call("ew_peak", have, value, have.count, int(step.of == "absolute"), c_float(step.to), file=_FILE)
    return value


def context(site: Site, step: Step, given: tuple[CValue, ...], made: ValueType) -> CValue:
    """Make the C of "context"."""
    assert isinstance(step, Context)
    (have,) = given
    row = math.prod(have.bound[1:])
    state = site.buffer(4 * step.samples * row, is_kept=True)
    site.at_reset("ew_fill_floats", state, step.samples * row, c_float(step.fill), file="ew_tensors")
    rows = f"({have.rows} + {step.samples})" if have.rows else ""
    value = site.value(made, rows=rows, bound=(have.bound[0] + step.samples, *have.bound[1:]))
    site.call("ew_context", have, rows_of(have), value, state, step.samples, row, file=_FILE)
    return value


def cut(site: Site, step: Step, given: tuple[CValue, ...], made: ValueType) -> CValue:
    """Make the C of "frame"."""
    assert isinstance(step, Cut)
    (have,) = given
    rows = count_frames(site, step, have)
    value = site.value(made, rows=rows, bound=(step.frames(have.bound[0]), step.length))
    _frame(site, step, have, value, "0")
    return value


def cut_row(site: Site, step: Cut, have: CValue, made: ValueType) -> CValue:
    """Make the C of "frame" for the frame number `row` alone."""
    value = site.value(made)
    _frame(site, step, have, value, "row")
    return value


def count_frames(site: Site, step: Cut, have: CValue) -> str:
    """Return how many frames there are, as C, where that is known only when it runs; else nothing."""
    if not have.rows:
        return ""
    rows = site.length()
    site.call(
        "ew_count_frames", f"&{rows}", have.rows, step.least(), step.length, step.hop, _pad(step), file=_FILE,
        is_checked=True,
    )  # fmt: skip
    return rows


def _frame(site: Site, step: Cut, have: CValue, value: CValue, first: str) -> None:
    site.call(
        "ew_frame", have, rows_of(have), value, first, rows_of(value), step.length, step.hop, _pad(step),
        _PADS[step.pad], site.floats(step.table()), file=_FILE,
    )  # fmt: skip


def _pad(step: Cut) -> int:
    return step.length // 2 if step.centre else 0


def overlap_add(site: Site, step: Step, given: tuple[CValue, ...], made: ValueType) -> CValue:
    """Make the C of "overlap_add"."""
    assert isinstance(step, OverlapAdd)
    (have,) = given
    length = have.bound[-1]
    if len(have.bound) == 1 and have.rows:
        raise site.refused(f"it gets {have.type}, whose length is not known before it runs")
    frames, most = (rows_of(have), have.bound[0]) if len(have.bound) == 2 else ("1", 1)
    state = site.buffer(4 * length, is_kept=True)
    site.at_reset("ew_fill_floats", state, length, c_float(0.0), file="ew_tensors")
    rows = f"({have.rows} * {step.hop})" if have.rows else ""
    value = site.value(made, rows=rows, bound=(most * step.hop,))
    table = np.asarray(step.table(length), dtype=np.float32)
    site.call("ew_overlap_add", have, frames, value, state, length, step.hop, site.floats(table), file=_FILE)
    return value
