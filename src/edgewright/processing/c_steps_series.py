"""C of the steps on series, landmarks, and scores run after run."""

from __future__ import annotations

import math

from edgewright.processing.c_site import CValue, Site
from edgewright.processing.c_steps_audio import rows_of
from edgewright.processing.c_text import c_double, c_float
from edgewright.processing.ctc import Ctc
from edgewright.processing.landmarks import Relative
from edgewright.processing.pcan import Pcan
from edgewright.processing.series import SeriesWindow, Standardise
from edgewright.processing.smoothing import Smooth, Threshold
from edgewright.processing.step import Step
from edgewright.processing.values import ValueType

_FILE = "ew_series"


def window(site: Site, step: Step, given: tuple[CValue, ...], made: ValueType) -> CValue:
    """Make the C of "window"."""
    assert isinstance(step, SeriesWindow)
    (have,) = given
    rows = ""
    if have.rows:
        rows = site.length()
        site.call(
            "ew_count_windows", f"&{rows}", have.rows, step.length, step.hop, file=_FILE, is_checked=True
        )
    most = max(1 + (have.bound[0] - step.length) // step.hop, 1)
    value = site.value(made, rows=rows, bound=(most, step.length, have.bound[1]))
    row = have.bound[1] * have.item_bytes
    site.call("ew_window", have, value, rows_of(value), step.length, step.hop, row, file=_FILE)
    return value


def standardise(site: Site, step: Step, given: tuple[CValue, ...], made: ValueType) -> CValue:
    """Make the C of "standardise"."""
    assert isinstance(step, Standardise)
    (have,) = given
    value = site.value(made, have)
    rank = len(have.bound)
    if step.mean:
        site.call(
            "ew_standardise", have, value, have.count, len(step.mean), site.floats(step.mean), site.floats(step.std),
            file=_FILE,
        )  # fmt: skip
        return value
    outer, time, channels = "1", have.count, 1
    if step.over == "time" and rank > 1:
        channels = have.bound[-1]
        time = rows_of(have) if rank == 2 else str(have.bound[-2])
        outer = "1" if rank == 2 else f"({have.count}) / {math.prod(have.bound[-2:])}"
    site.call("ew_standardise_own", have, value, outer, time, channels, c_float(step.epsilon), file=_FILE)
    return value


def relative(site: Site, step: Step, given: tuple[CValue, ...], made: ValueType) -> CValue:
    """Make the C of "relative"."""
    assert isinstance(step, Relative)
    (have,) = given
    value = site.value(made)
    points, size = have.bound
    scale = ("none", "largest", "distance").index(step.scale)
    is_integer = int(have.type.dtype == "int32")
    site.call(
        "ew_relative", have, is_integer, value, points, size, value.bound[1], step.origin, scale, file=_FILE
    )
    return value


def pcan(site: Site, step: Step, given: tuple[CValue, ...], made: ValueType) -> CValue:
    """Make the C of "pcan"."""
    assert isinstance(step, Pcan)
    (have,) = given
    value = site.value(made, have)
    channels = have.bound[1]
    state = site.buffer(4 * channels, is_kept=True)
    site.at_reset("ew_fill_floats", state, channels, c_float(0.0), file="ew_tensors")
    options = (step.even_smoothing, step.odd_smoothing, step.remaining, step.strength, step.offset)
    site.call("ew_pcan", have, value, rows_of(have), channels, state, *map(c_double, options), file="ew_pcan")
    return value


def smooth(site: Site, step: Step, given: tuple[CValue, ...], made: ValueType) -> CValue:
    """Make the C of "smooth"."""
    assert isinstance(step, Smooth)
    (have,) = given
    value = site.value(made)
    count = (1 + step.runs + step.hold) * have.most
    state = site.buffer(4 * count, is_kept=True)
    site.at_reset("ew_fill_floats", state, count, c_float(0.0), file="ew_tensors")
    site.call("ew_smooth", have, value, have.most, state, step.runs, step.hold, file=_FILE)
    return value


def threshold(site: Site, step: Step, given: tuple[CValue, ...], made: ValueType) -> CValue:
    """Make the C of "threshold"."""
    assert isinstance(step, Threshold)
    (have,) = given
    value = site.value(made)
    state = site.buffer(12 * have.most, is_kept=True)
    site.at_reset("ew_fill_floats", state, 3 * have.most, c_float(0.0), file="ew_tensors")
    off = step.on if step.off is None else step.off
    site.call(
        "ew_threshold", have, value, have.most, state, c_float(step.on), c_float(off), step.min_runs, step.off_runs,
        file=_FILE,
    )  # fmt: skip
    return value


def ctc(site: Site, step: Step, given: tuple[CValue, ...], made: ValueType) -> CValue:
    """Make the C of "ctc"."""
    assert isinstance(step, Ctc)
    (have,) = given
    rows = site.length()
    value = site.value(made, rows=rows, bound=(have.bound[0],))
    classes = have.bound[1]
    blank = classes - 1 if step.blank == -1 else step.blank
    site.call(f"{rows} = ew_ctc", have, rows_of(have), classes, blank, value, file=_FILE)
    return value
