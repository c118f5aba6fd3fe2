"""A data set on its way to a worker: arrays as .npy files in a folder, and a record of JSON values."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from edgewright.core.errors import IntegrityError
from edgewright.data.datasets import Dataset

_LABELS = "labels.npy"


def hand_over(dataset: Dataset, folder: Path) -> dict[str, object]:
    """Write the arrays of `dataset` into `folder`; return the record from which `take_over` gives it back."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, array in enumerate(dataset.inputs.values()):
        np.save(folder / f"{index}.npy", array, allow_pickle=False)
    if dataset.labels is not None:
        np.save(folder / _LABELS, dataset.labels, allow_pickle=False)
    return {
        "folder": str(folder),
        "inputs": list(dataset.inputs),
        "has_labels": dataset.labels is not None,
        "description": dataset.description,
        "sha256": dataset.sha256,
    }


def take_over(record: Mapping[str, object]) -> Dataset:
    """Return the data set of a record of `hand_over`; its inputs are mapped, copied where they are written.

    Raises:
        IntegrityError: a file is missing or broken.
    """
    folder, names = Path(str(record["folder"])), record["inputs"]
    assert isinstance(names, list)
    try:
        inputs = {
            str(name): np.load(folder / f"{index}.npy", mmap_mode="c", allow_pickle=False)
            for index, name in enumerate(names)
        }
        labels = np.load(folder / _LABELS, allow_pickle=False) if record["has_labels"] is True else None
    except (OSError, ValueError) as err:
        raise IntegrityError(
            f"the data handed over in {folder} cannot be read: {err}. Run it again."
        ) from err
    return Dataset(
        inputs=inputs, labels=labels, description=str(record["description"]), sha256=str(record["sha256"])
    )
