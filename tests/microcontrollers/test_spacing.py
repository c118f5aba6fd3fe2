"""Blocks, mirrored edges and gathered slices as C, against numpy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.microcontrollers.c_models import open_model
from tests.microcontrollers.generated import KINDS

from edgewright.core.tensors import Array
from edgewright.microcontrollers.emit import compile_model
from edgewright.microcontrollers.graph import Graph

pytestmark = pytest.mark.toolchain("ai_edge_litert")


def _constant(graph: Graph, position: int) -> Array:
    value = graph.tensor(graph.operators[0].inputs[position]).value
    assert value is not None
    return value


def _depth_from_space(graph: Graph, x: Array) -> Array:
    block = graph.operators[0].integer("BlockSize")
    n, h, w, c = x.shape
    parts = x.reshape(n, h // block, block, w // block, block, c)
    return parts.transpose(0, 1, 3, 2, 4, 5).reshape(n, h // block, w // block, c * block**2)


def _space_from_depth(graph: Graph, x: Array) -> Array:
    block = graph.operators[0].integer("BlockSize")
    n, h, w, c = x.shape
    parts = x.reshape(n, h, w, block, block, c // block**2)
    return parts.transpose(0, 1, 3, 2, 4, 5).reshape(n, h * block, w * block, c // block**2)


def _space_from_batch(graph: Graph, x: Array) -> Array:
    blocks, crops = _constant(graph, 1), _constant(graph, 2)
    whole = np.zeros(
        (x.shape[0] // int(blocks.prod()), *(x.shape[1 : 1 + len(blocks)] * blocks), x.shape[-1])
    )
    for number, place in enumerate(np.ndindex(*blocks)):
        part = x[number * whole.shape[0] : (number + 1) * whole.shape[0]]
        whole[(slice(None), *(slice(at, None, step) for at, step in zip(place, blocks, strict=True)))] = part
    cut = (slice(a, whole.shape[1 + i] - b) for i, (a, b) in enumerate(crops))
    return whole[(slice(None), *cut)].astype(x.dtype)


def _mirrored(graph: Graph, x: Array) -> Array:
    return np.pad(
        x, _constant(graph, 1), mode="symmetric" if graph.operators[0].integer("Mode") else "reflect"
    )


def _broadcast(graph: Graph, x: Array) -> Array:
    return np.broadcast_to(x, tuple(_constant(graph, 1)))


@pytest.mark.parametrize(
    ("kind", "reference"),
    [
        ("space_to_depth", _depth_from_space),
        ("depth_to_space", _space_from_depth),
        ("batch_to_space_nd", _space_from_batch),
        ("mirror_pad", _mirrored),
        ("broadcast_to", _broadcast),
    ],
)
def test_moves_are_numpys(kind: str, reference: object, tmp_path: Path) -> None:
    assert callable(reference)
    for seed in range(3):
        draw = np.random.default_rng(seed)
        path = tmp_path / f"{kind}_{seed}.tflite"
        KINDS[kind](draw, path)
        model = compile_model(path, name=path.stem)
        values = draw.integers(-128, 128, model.graph.tensor(model.graph.inputs[0]).shape).astype(np.int8)
        (found,) = open_model(model, tmp_path).run([values])
        np.testing.assert_array_equal(found, reference(model.graph, values))
