"""Quantized artifacts of a CNN with 300 thousand parameters are at least 3.5 times smaller, all files counted."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.backends import programs

from edgewright.backends.litert import LiteRTBackend
from edgewright.backends.openvino import OpenVINOBackend
from edgewright.compress.quantize import quantize_pt2e
from edgewright.core.contracts import Backend
from edgewright.core.program import Program
from edgewright.core.target import Precision, Target

pytestmark = [
    pytest.mark.slow,
    pytest.mark.toolchain("torch", "torchao", "openvino", "nncf", "litert_torch", "ai_edge_quantizer"),
]


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Program:
    """Return a separable CNN, wide where it is small, as such networks are."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Conv2d(1, 32, 3, padding=1), nn.ReLU()]
    for have, want in ((32, 128), (128, 256), (256, 512), (512, 256)):
        layers += [
            nn.Conv2d(have, have, 3, padding=1, groups=have),
            nn.ReLU(),
            nn.Conv2d(have, want, 1),
            nn.ReLU(),
        ]
    module = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(256, 10)).eval()
    assert 290_000 < sum(parameter.numel() for parameter in module.parameters()) < 330_000
    folder = tmp_path_factory.mktemp("large")
    return programs._export(module, folder / "large.pt2", {"image": (1, 8, 8)}, {"logits": (10,)}, True)


@pytest.mark.parametrize("backend", [LiteRTBackend(), OpenVINOBackend()], ids=lambda backend: backend.name)
def test_sizes(backend: Backend, large: Program, tmp_path: Path) -> None:
    calibration = programs.calibration_for(large, tmp_path, count=16)
    quantized = quantize_pt2e(
        large, precision=Precision.W8A8, calibration=calibration, workdir=tmp_path / "pt2e"
    )
    sizes = {}
    for precision in backend.precisions:
        source = quantized if precision is Precision.W8A8 else large
        target = Target(runtime=backend.name, precision=precision)
        sizes[precision] = backend.convert(source, target, calibration, tmp_path / precision).size_bytes
    print(backend.name, {str(name): size for name, size in sizes.items()})
    assert sizes[Precision.FP32] > 1.9 * sizes[Precision.FP16]
    assert sizes[Precision.FP32] > 3.5 * sizes[Precision.W8]
    assert sizes[Precision.FP32] > 3.5 * sizes[Precision.W8A8]
    if Precision.W4 in sizes:
        assert sizes[Precision.FP32] > 5.5 * sizes[Precision.W4]
