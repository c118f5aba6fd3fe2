"""Read a folder of raw inputs as samples, through the specification of their processing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgewright.core.errors import DataError
from edgewright.core.tensors import Array, TensorSpec
from edgewright.data.images import list_samples
from edgewright.data.lints import Lint
from edgewright.processing.processor import Plan, Processor, Raw
from edgewright.processing.raw import RAW_SUFFIXES, read_raw

_MAX_TOTAL_BYTES = 16 << 30


def read_processed_folder(
    folder: Path, inputs: Sequence[TensorSpec], checked: Plan
) -> tuple[dict[str, Array], Array | None, list[Lint]]:
    """Return (inputs, labels, lints) of the images, sounds or arrays in `folder`, prepared as `checked` says.

    With sub-folders, each is a class and its index in sorted order is the label.

    Raises:
        DataError: the specification takes several inputs, or a file cannot be read.
    """
    rows = checked.specification.inputs
    if len(rows) != 1 or rows[0].kind not in RAW_SUFFIXES:
        names = ", ".join(row.name for row in rows)
        raise DataError(f"{folder} gives one raw input a sample, but the specification takes {names}.")
    if len(checked.signatures) != 1:
        raise DataError(
            f"{folder}: a specification of {len(checked.signatures)} models has no data set of one."
        )
    files, labels, lints = list_samples(folder, RAW_SUFFIXES[rows[0].kind], what=rows[0].kind)
    processor = Processor(checked)
    arrays: dict[str, Array] = {}
    for index, file in enumerate(files):
        processor.reset()
        try:
            prepared = processor.prepare({rows[0].name: read_raw(rows[0], file)})
        except DataError as err:
            raise DataError(f"{file}: {err}") from err
        for spec in inputs:
            sample = _sample(prepared[spec.name], spec)
            if index == 0:
                if sample.nbytes * len(files) > _MAX_TOTAL_BYTES:
                    raise DataError(
                        f"{folder} makes {sample.nbytes * len(files)} bytes of samples; at most {_MAX_TOTAL_BYTES}. "
                        "Give fewer."
                    )
                arrays[spec.name] = np.empty((len(files), *sample.shape), dtype=sample.dtype)
            if sample.shape != arrays[spec.name].shape[1:]:
                raise DataError(
                    f"{file} makes {list(sample.shape)} of {spec.name!r}, but the files before it "
                    f"{list(arrays[spec.name].shape[1:])}. Let the steps give all one size."
                )
            arrays[spec.name][index] = sample
    return arrays, labels, lints


def read_raw_samples(folder: Path, checked: Plan, *, most: int) -> list[dict[str, Raw]]:
    """Return the first `most` raw inputs in `folder`, by the name of the specification's only input.

    None where the specification takes several inputs: a folder gives one.

    Raises:
        DataError: a file cannot be read.
    """
    rows = checked.specification.inputs
    if len(rows) != 1 or rows[0].kind not in RAW_SUFFIXES:
        return []
    files, _, _ = list_samples(folder, RAW_SUFFIXES[rows[0].kind], what=rows[0].kind)
    return [{rows[0].name: read_raw(rows[0], file)} for file in files[:most]]


def _sample(array: Array, spec: TensorSpec) -> Array:
    """Return `array` without the batch axis that data sets put in front."""
    has_batch = bool(spec.shape) and spec.shape[0] in (1, None)
    return array[0] if has_batch and array.ndim == len(spec.shape) else array
