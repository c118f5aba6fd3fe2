"""C of the steps on spectra and their magnitudes."""

from __future__ import annotations

import math

import numpy as np

from edgewright.core.tensors import Array
from edgewright.processing.c_site import CValue, Site
from edgewright.processing.c_steps_tensors import rows_and_size
from edgewright.processing.c_text import c_double, c_float
from edgewright.processing.mel import Dct, Log, Mel
from edgewright.processing.spectrum import Fft, InverseFft, Magnitude
from edgewright.processing.step import Step
from edgewright.processing.values import ValueType

_FFT, _FILE = "ew_fft", "ew_spectrum"


def fft(site: Site, step: Step, given: tuple[CValue, ...], made: ValueType) -> CValue:
    """Make the C of "fft"."""
    assert isinstance(step, Fft)
    (have,) = given
    if len(have.bound) == 1 and have.rows:
        raise site.refused(f"it gets {have.type}, whose length is not known before it runs")
    value = site.value(made, have if have.rows else None)
    rows = have.rows or str(math.prod(have.bound[:-1]))
    scratch = site.buffer(16 * step.size)
    site.call(
        "ew_fft", have, rows, have.bound[-1], value, step.size, _turn(site, step.size), scratch, file=_FFT
    )
    return value


def inverse_fft(site: Site, step: Step, given: tuple[CValue, ...], made: ValueType) -> CValue:
    """Make the C of "inverse_fft"."""
    assert isinstance(step, InverseFft)
    (have,) = given
    size = 2 * (have.bound[-2] - 1)
    value = site.value(made, have if have.rows else None)
    rows = have.rows or str(math.prod(have.bound[:-2]))
    scratch = site.buffer(16 * size)
    site.call(
        "ew_inverse_fft", have, rows, value, step.length or size, size, _turn(site, size), scratch, file=_FFT
    )
    return value


def magnitude(site: Site, step: Step, given: tuple[CValue, ...], made: ValueType) -> CValue:
    """Make the C of "magnitude"."""
    assert isinstance(step, Magnitude)
    (have,) = given
    value = site.value(made, have if have.rows else None)
    site.call("ew_magnitude", have, value, value.count, step.power, file=_FILE)
    return value


def multiply(site: Site, step: Step, given: tuple[CValue, ...], made: ValueType) -> CValue:
    """Make the C of "multiply"."""
    first, second = given
    value = site.value(made)
    if first.type.shape != second.type.shape:
        site.call("ew_multiply_mask", first, second, value, second.most, file=_FILE)
    elif first.type.kind == second.type.kind == "spectrum":
        site.call("ew_multiply_spectra", first, second, value, first.most // 2, file=_FILE)
    else:
        site.call("ew_multiply", first, second, value, first.most, first.most, file="ew_tensors")
    return value


def mel(site: Site, step: Step, given: tuple[CValue, ...], made: ValueType) -> CValue:
    """Make the C of "mel": the weights without the zeros around each triangle."""
    assert isinstance(step, Mel)
    (have,) = given
    rows, size = rows_and_size(site, have)
    firsts, counts, weights = _triangles(step.table(size, have.type.rate_hz))
    value = site.value(made, have if have.rows else None)
    site.call(
        "ew_mel", have, rows, size, value, step.bins, site.table(firsts), site.table(counts), site.table(weights),
        file=_FILE,
    )  # fmt: skip
    return value


def log(site: Site, step: Step, given: tuple[CValue, ...], made: ValueType) -> CValue:
    """Make the C of "log"."""
    assert isinstance(step, Log)
    (have,) = given
    value = site.value(made, have)
    site.call(
        "ew_log_steps", have, value, have.count, c_double(step.offset), c_double(step.floor), c_double(step.factor()),
        c_float(step.span), file=_FILE,
    )  # fmt: skip
    return value


def dct(site: Site, step: Step, given: tuple[CValue, ...], made: ValueType) -> CValue:
    """Make the C of "dct"."""
    assert isinstance(step, Dct)
    (have,) = given
    rows, size = rows_and_size(site, have)
    value = site.value(made, have if have.rows else None)
    table = site.floats(np.ascontiguousarray(step.table(size).T))
    site.call("ew_products", have, rows, size, value, step.coefficients, table, file=_FILE)
    return value


def _turn(site: Site, size: int) -> str:
    """Return the table of half a turn: cos and -sin of 2 pi k / size."""
    angle = 2.0 * math.pi * np.arange(size // 2) / size
    pairs = np.stack([np.cos(angle), -np.sin(angle)], axis=1)
    pairs[np.abs(pairs) < 1e-15] = 0.0  # of a quarter turn
    return site.table(pairs)


def _triangles(table: Array) -> tuple[Array, Array, Array]:
    """Return first bin and number of bins of each triangle, and the weights one after another."""
    firsts, counts, weights = [], [], [np.zeros(0, dtype=np.float32)]
    for column in table.T:
        found = np.flatnonzero(column)
        first, end = (int(found[0]), int(found[-1]) + 1) if len(found) else (0, 0)
        firsts.append(first)
        counts.append(end - first)
        weights.append(column[first:end])
    joined = np.concatenate(weights)
    # C has no empty arrays.
    return (
        np.array(firsts, dtype=np.int32), np.array(counts, dtype=np.int32),
        joined if len(joined) else np.zeros(1, dtype=np.float32),
    )  # fmt: skip
