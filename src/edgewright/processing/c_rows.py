"""Frames of sound one after another: steps that make each row of itself run row by row, in the memory of one row."""

from __future__ import annotations

from collections.abc import Sequence

from edgewright.processing.c_registry import emitter
from edgewright.processing.c_site import Buffer, CValue, Site
from edgewright.processing.c_steps_audio import count_frames, cut_row
from edgewright.processing.mel import Log
from edgewright.processing.spectrum import Cut
from edgewright.processing.step import Step
from edgewright.processing.values import ValueType

# Steps whose rows do not know of one another; "log" with a span looks for the largest of all.
_ROW_STEPS = frozenset(
    {"pre_emphasis", "fft", "inverse_fft", "magnitude", "mel", "log", "dct", "scale", "cast", "quantize"}
)


def row_steps(steps: Sequence[Step]) -> int:
    """Return how many of the first steps run row by row: "frame" and those after it, 0 for none."""
    if not steps or not isinstance(steps[0], Cut):
        return 0
    count = 1
    for step in steps[1:]:
        if step.name not in _ROW_STEPS or (isinstance(step, Log) and step.span):
            break
        count += 1
    return count if count > 1 else 0


def make_rows(site: Site, steps: Sequence[Step], have: CValue, types: Sequence[ValueType]) -> CValue:
    """Make the C of `steps`, of which `row_steps` says that they run row by row, and that make `types`."""
    cut, made = steps[0], types[-1]
    assert isinstance(cut, Cut)
    rows, most = count_frames(site, cut, have), cut.frames(have.bound[0])
    inner = [size for size in made.shape[1:] if size is not None]
    value = site.value(made, rows=rows, bound=(most, *inner))
    begin = site.begin_loop(rows or most)
    row = cut_row(site, cut, have, _one(types[0]))
    for step, kind in zip(steps[1:], types[1:], strict=True):
        emit = emitter(step.name)
        assert emit is not None
        row = emit(site, step, (row,), _one(kind))
    site.call("ew_put", row, row.most * row.item_bytes, value, "row", file="ew_tensors")
    assert isinstance(value.place, Buffer)
    site.end_loop(begin, value.place)
    return value


def _one(made: ValueType) -> ValueType:
    """Return the type of one row."""
    return made.of(1, *made.shape[1:])
