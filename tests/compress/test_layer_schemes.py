"""A precision for each layer: what is asked for is in the program, and names that are not there are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.compress.quantized_pairs import make_pair

from edgewright.compress.int8_quantizer import LayerScheme
from edgewright.compress.sensitivity import compare, run_batches
from edgewright.core.errors import ConversionError, UnknownNameError

pytestmark = pytest.mark.toolchain("torch", "torchao")


def test_each_layer_gets_its_own(tmp_path: Path) -> None:
    layers = {"stem": LayerScheme.FLOAT, "depthwise": LayerScheme.W8, "classify": LayerScheme.W4A8}
    pair = make_pair(tmp_path, layers={**layers, "add": LayerScheme.FLOAT})
    quantizers = {
        name: getattr(pair.quantized.get_submodule(name), "weight_quantizer", None)
        for name in ("stem", "depthwise", "pointwise", "classify")
    }
    assert quantizers["stem"] is None
    assert {name: found.high for name, found in quantizers.items() if found is not None} == {
        "depthwise": 127,
        "pointwise": 127,
        "classify": 7,
    }
    sources = {
        str(node.target): str(node.all_input_nodes[0].target)
        for node in pair.quantized.graph.nodes
        if node.op == "call_module" and str(node.target) in quantizers
    }
    # The first two read floats; what the others read is rounded to int8 before.
    assert sources["stem"] == "x"
    assert sources["depthwise"].startswith("aten.relu")
    assert sources["pointwise"].startswith("quantize_per_tensor")
    assert sources["classify"].startswith("quantize_per_tensor")
    scores = compare(run_batches(pair.reference, pair.batches), run_batches(pair.quantized, pair.batches))
    assert scores.sqnr_db > 15


def test_unknown_layers_and_no_layer_at_all_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="'pointwise'"):
        make_pair(tmp_path, layers={"pointwize": LayerScheme.FLOAT})
    everything = dict.fromkeys(("stem", "depthwise", "pointwise", "classify"), LayerScheme.FLOAT)
    with pytest.raises(ConversionError, match="no convolution or linear layer"):
        make_pair(tmp_path, layers=everything)
