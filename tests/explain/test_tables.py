"""The tables: they come from toolchains of a known version, and say what is known of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgewright.explain.tables import Kernel, load_table

TABLES = Path(__file__).resolve().parents[2] / "src" / "edgewright" / "explain" / "tables"


@pytest.mark.parametrize("path", sorted(TABLES.glob("*.json")), ids=lambda path: path.name)
def test_every_table_says_what_made_it(path: Path) -> None:
    record = json.loads(path.read_text(encoding="utf-8"))
    assert record["generated_by"].startswith("scripts/support_")
    assert record["versions"]
    assert all(version for version in record["versions"].values())
    assert path.name.startswith(record["runtime"])


def test_a_runtime_without_a_table_has_none() -> None:
    assert load_table("tensorrt") is None


def test_known_operators_are_in_the_tables() -> None:
    runtimes = {
        name: load_table(name) for name in ("litert", "onnxruntime", "openvino", "executorch", "coreml")
    }
    tables = {name: table for name, table in runtimes.items() if table is not None}
    assert len(tables) == 5
    assert "Conv" in tables["onnxruntime"].formats["onnx"].kernels
    assert "Conv" in tables["openvino"].formats["onnx"].operators
    assert "Det" not in tables["openvino"].formats["onnx"].operators
    assert "CONV_2D" in tables["litert"].formats["tflite"].operators
    assert "aten.convolution.default" in tables["litert"].formats["pt2"].operators
    assert "aten.lgamma.default" not in tables["executorch"].formats["pt2"].operators
    assert "convolution.default" in tables["executorch"].formats["pt2"].delegated
    assert "conv2d" in tables["coreml"].formats["pt2"].names


def test_an_open_ended_kernel_serves_its_own_version_alone() -> None:
    is_open = Kernel(since=13, until=1 << 20, types={})
    closed = Kernel(since=7, until=12, types={})
    assert [is_open.serves(version) for version in (12, 13, 14)] == [False, True, False]
    assert [closed.serves(version) for version in (6, 7, 12, 13)] == [False, True, True, False]
