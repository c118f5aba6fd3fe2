"""Neural-network operators of ONNX, through the bridge, run by LiteRT: one of ONNX's own tests for each kind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.bridges import onnx_node_tests

from edgewright.backends.litert import LiteRTBackend
from edgewright.bridges.onnx_torch import OnnxToTorch
from edgewright.core.target import Precision, Target

NAMES = (
    "test_attention_3d_gqa_causal",
    "test_attention_3d_local_window",
    "test_averagepool_2d_ceil",
    "test_basic_deform_conv_with_padding",
    "test_convinteger_with_padding",
    "test_convtranspose_pads",
    "test_gridsample_bicubic",
    "test_layer_normalization_4d_axis1",
    "test_lppool_3d_default",
    "test_lstm_with_peepholes",
    "test_maxpool_with_argmax_2d_precomputed_pads",
    "test_qlinearconv",
    "test_resize_upsample_scales_cubic",
    "test_resize_upsample_sizes_nearest",
    "test_rotary_embedding_interleaved",
    "test_sce_mean_weight_ii_log_prob",
)
OPERANDS = ("scales", "sizes", "sequence_lens")


@pytest.mark.slow
@pytest.mark.toolchain("litert_torch", "ai_edge_litert")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NAMES)
def test_litert_gives_the_expected_outputs(name: str, tmp_path: Path) -> None:
    program, inputs, wanted, rtol, atol = onnx_node_tests.example(name, tmp_path, operands=OPERANDS)
    program = OnnxToTorch().convert(program, tmp_path / "bridge")
    target = Target(runtime="litert", precision=Precision.parse(program.precision))
    backend = LiteRTBackend()
    session = backend.open(backend.convert(program, target, None, tmp_path / "litert"), target)
    try:
        results = session.run(inputs)
    finally:
        session.close()
    for spec, expected in zip(program.outputs, wanted, strict=True):
        result = results[spec.name]
        assert (result.dtype, result.shape) == (expected.dtype, expected.shape)
        np.testing.assert_allclose(result.astype(np.float64), expected.astype(np.float64), rtol, atol)
