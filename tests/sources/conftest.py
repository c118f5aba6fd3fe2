"""One worker for all reading tests, and models made on the spot."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import pytest

from edgewright.core.program import Program
from edgewright.sources.detect import detect_format
from edgewright.workers.pool import Worker

Reader = Callable[[Path], Program]


class FactoryReader(Protocol):
    def __call__(
        self,
        spec: str,
        input_shapes: Sequence[str],
        *,
        weights: Path | None = None,
        layout: str | None = None,
        folder: str = "factory",
    ) -> Program: ...


@pytest.fixture(scope="session")
def worker() -> Iterator[Worker]:
    """Return the worker that reads every file of these tests, so that a crash of it would be seen."""
    with Worker("sources-tests") as running:
        yield running


@pytest.fixture
def read(worker: Worker, tmp_path: Path) -> Reader:
    """Return a function that reads a model file as `load` does, in the shared worker."""

    def run(path: Path) -> Program:
        arguments: dict[str, object] = {
            "spec": str(path),
            "path": str(path),
            "format": detect_format(path),
            "workdir": str(tmp_path),
            "layout": None,
        }
        record = worker.call("edgewright.sources.operations:read", arguments)["program"]
        assert isinstance(record, dict)
        return Program.from_json(record)

    return run


@pytest.fixture
def read_factory(worker: Worker, tmp_path: Path) -> FactoryReader:
    """Return a function that reads a factory as `load` does, in the shared worker."""

    def run(
        spec: str,
        input_shapes: Sequence[str],
        *,
        weights: Path | None = None,
        layout: str | None = None,
        folder: str = "factory",
    ) -> Program:
        (tmp_path / folder).mkdir(exist_ok=True)
        arguments: dict[str, object] = {
            "spec": spec,
            "format": "factory",
            "weights": None if weights is None else str(weights),
            "input_shapes": list(input_shapes),
            "import_path": [entry for entry in sys.path if entry],
            "workdir": str(tmp_path / folder),
            "layout": layout,
        }
        record = worker.call("edgewright.sources.operations:read", arguments)["program"]
        assert isinstance(record, dict)
        return Program.from_json(record)

    return run


@pytest.fixture(scope="session")
def tiny_pt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a small `.pt2` with dynamic batch, saved by torch.export itself."""
    torch = pytest.importorskip("torch")
    from tests.sources import models_under_test

    path = tmp_path_factory.mktemp("pt2") / "tiny.pt2"
    exported = torch.export.export(
        models_under_test.tiny().eval(),
        (torch.randn(2, 3, 8, 8),),
        dynamic_shapes=({0: torch.export.Dim("batch")},),
    )
    torch.export.save(exported, path)
    return path


@pytest.fixture(scope="session")
def tiny_onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a small ONNX model: Gemm and Relu, dynamic batch."""
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper

    weight = onnx.numpy_helper.from_array(np.full((4, 3), 0.5, np.float32), "w")
    bias = onnx.numpy_helper.from_array(np.full(3, 0.1, np.float32), "b")
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "w", "b"], ["h"]), helper.make_node("Relu", ["h"], ["y"])],
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])],
        [weight, bias],
    )
    path = tmp_path_factory.mktemp("onnx") / "tiny.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    return path


@pytest.fixture(scope="session")
def tiny_tflite(assets: Path) -> Path:
    """Return a small real `.tflite`."""
    return assets / "models/tflite-micro/hello_world_int8.tflite"
