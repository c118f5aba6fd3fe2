"""Routes between formats."""

from __future__ import annotations

import pytest

from edgewright.bridges import registry
from edgewright.core.contracts import Support
from edgewright.core.errors import UnavailableError, UnknownNameError
from edgewright.core.program import FORMATS


def _names(source: str, *consumes: str) -> list[str]:
    return [bridge.name for bridge in registry.route(source, consumes, runtime="here")]


def test_what_a_runtime_reads_needs_no_bridge() -> None:
    assert _names("onnx", "pt2", "onnx") == []


def test_the_shortest_route_is_taken_and_among_equals_the_first_format() -> None:
    assert _names("tflite", "pt2", "onnx") == ["tflite-to-onnx"]
    assert _names("tflite", "pt2") == ["tflite-to-onnx", "onnx-to-torch"]
    assert _names("pt2", "torchscript", "onnx") == ["torch-to-torchscript"]
    assert _names("pt2", "onnx", "torchscript") == ["torch-to-onnx"]


def test_a_format_that_nothing_makes_is_named() -> None:
    with pytest.raises(
        UnavailableError, match="here reads caffe, and nothing here makes one of these from onnx"
    ):
        registry.route("onnx", ("caffe",), runtime="here")


def test_a_missing_toolchain_is_named_with_the_whole_route(monkeypatch: pytest.MonkeyPatch) -> None:
    bridge = registry.get("tflite-to-onnx")
    missing = Support(is_available=False, versions={}, reason="onnx not installed; run: pip install onnx")
    monkeypatch.setattr(type(bridge), "probe", lambda self: missing)
    with pytest.raises(
        UnavailableError, match="tflite -> onnx -> pt2, and that needs more: onnx not installed"
    ):
        registry.route("tflite", ("pt2",), runtime="here")


def test_every_bridge_joins_two_formats_that_programs_have() -> None:
    for name in registry._BRIDGES:
        bridge = registry.get(name)
        assert bridge.name == name
        assert {*bridge.reads, bridge.writes} <= set(FORMATS)
        assert bridge.writes not in bridge.reads


def test_an_unknown_bridge_is_told_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="tflite-to-onnx"):
        registry.get("tflite-to-onx")
