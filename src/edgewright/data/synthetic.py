"""Made-up inputs, for comparing a model with its conversions where there is no data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from edgewright.core.errors import DataError
from edgewright.core.tensors import Array, TensorSpec
from edgewright.data.datasets import Dataset, make_dataset
from edgewright.data.fit import fit_array


def synthetic_inputs(
    specs: Sequence[TensorSpec], *, count: int, seed: int, values: Mapping[str, Array] | None = None
) -> Dataset:
    """Return made-up inputs for comparing a model with its conversions; never for calibration or metrics.

    Floats are N(0, 1), int8 and uint8 cover their range, other integers are 0 or 1 (1 for a scalar),
    booleans are either. Dynamic dimensions become 1.

    Args:
        values: input name -> the array of one sample, where the model needs a special value.
    Raises:
        DataError: `values` names no input or does not fit, or an input holds text.
    """
    generator = np.random.default_rng(seed)
    given = dict(values or {})
    unknown = sorted(set(given) - {spec.name for spec in specs})
    if unknown:
        raise DataError(
            f"values are given for {unknown}, but the model takes {[str(spec) for spec in specs]}."
        )
    inputs: dict[str, Array] = {}
    for spec in specs:
        if spec.name in given:
            value = np.asarray(given[spec.name])
            if value.ndim == len(spec.shape) and spec.has_dynamic_batch and len(value) == 1:
                value = value[0]
            repeated = np.repeat(value[None], count, axis=0)
            inputs[spec.name], _ = fit_array(repeated, spec, what="a given value")
        else:
            inputs[spec.name] = _made_up(spec, count, generator)
    description = f"synthetic: {count} random samples (seed {seed}), for parity only"
    return make_dataset(inputs, None, description=description)


def _made_up(spec: TensorSpec, count: int, generator: np.random.Generator) -> Array:
    sizes = spec.shape[1:] if spec.shape and spec.shape[0] in (1, None) else spec.shape
    shape = (count, *(1 if size is None else size for size in sizes))
    if spec.dtype.startswith("float"):
        return generator.standard_normal(shape).astype(spec.dtype)
    if spec.dtype in ("int8", "uint8"):
        info = np.iinfo(spec.dtype)
        return generator.integers(info.min, info.max, shape, endpoint=True).astype(spec.dtype)
    if spec.dtype == "string":
        raise DataError(f"no samples can be made up for {spec}. Give a data set.")
    if not spec.shape:
        return np.ones(shape, dtype=spec.dtype)
    return generator.integers(0, 1, shape, endpoint=True).astype(spec.dtype)
