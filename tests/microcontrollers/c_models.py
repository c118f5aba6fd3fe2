"""C models for tests: compiled, built and run on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgewright.core.tensors import Array
from edgewright.microcontrollers.emit import CModel, compile_model, write_sources
from edgewright.microcontrollers.host import HostModel


def open_model(model: CModel, folder: Path) -> HostModel:
    """Return `model` built for this machine."""
    return HostModel(write_sources(model, folder)[0], graph=model.graph, folder=folder)


def run_rows(path: Path, rows: Sequence[Sequence[Array]], folder: Path) -> list[tuple[Array, ...]]:
    """Return the outputs of the C model of `path` for each row."""
    made = open_model(compile_model(path, name="tested"), folder)
    return [made.run(row) for row in rows]


def random_rows(model: CModel, count: int, seed: int) -> list[list[Array]]:
    """Return `count` rows of random inputs over the whole range of int8."""
    draw = np.random.default_rng(seed)
    return [
        [
            draw.integers(-128, 128, model.graph.tensor(i).shape).astype(model.graph.tensor(i).dtype)
            for i in model.graph.inputs
        ]
        for _ in range(count)
    ]
