"""Pruning to a measured latency: the search, and a real runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgewright.compress.prune_graph import count_costs
from edgewright.compress.prune_latency import find_share
from edgewright.compress.pruning import prune
from edgewright.core.errors import ConversionError, UnknownNameError
from edgewright.measure.latency import LatencyComparison, compare_latency

pytestmark = pytest.mark.toolchain("torch", "torch_pruning")

IMAGES = (torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)),)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 64, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(64, 64, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, 10),
    ).eval()


class Model(nn.Module):
    """Stands for a module with a share of the MACs."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share


class Formula:
    """A runtime whose time is known: a fixed part, and one that grows with the MACs."""

    def __init__(self, fixed: float) -> None:
        self.fixed = fixed

    def compare(self, module: nn.Module) -> LatencyComparison:
        assert isinstance(module, Model)
        times = self.fixed + (1 - self.fixed) * module.share
        return compare_latency([[np.array([1e6])]] * 3, [[np.array([1e6 * times])]] * 3)


@pytest.mark.parametrize("fixed", [0.0, 0.2, 0.4])
@pytest.mark.parametrize("target", [0.5, 0.8])
def test_search_finds_the_share(fixed: float, target: float) -> None:
    seen: list[float | None] = []
    found = find_share(Model, 0.01, target, Formula(fixed), lambda line, share: seen.append(share))
    assert found.latency.ratio == pytest.approx(target, rel=0.03)
    assert fixed + (1 - fixed) * found.share == pytest.approx(target, rel=0.03)
    assert len(found.probes) == len(seen) <= 7


def test_search_says_when_the_runtime_cannot_be_that_fast() -> None:
    with pytest.raises(ConversionError, match=r"latency=0\.3 cannot be reached.*1% of the MACs.*60%"):
        find_share(Model, 0.01, 0.3, Formula(0.6), lambda line, share: None)


def test_unknown_runtime_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="onnxruntime"):
        prune(network(), IMAGES, latency=0.5, runtime="onnxruntim")


@pytest.mark.slow
@pytest.mark.toolchain("onnxruntime", "onnxscript")
def test_latency_on_a_runtime(tmp_path: Path) -> None:
    module = network()

    def pruned_again(lines: list[str]) -> nn.Module:
        return prune(
            module,
            IMAGES,
            latency=0.6,
            runtime="onnxruntime",
            checkpoints=tmp_path,
            report=lambda line, share: lines.append(line),
        )

    lines: list[str] = []
    pruned = pruned_again(lines)
    assert any("of the MACs take" in line for line in lines)
    lines = []
    assert torch.equal(pruned_again(lines)(*IMAGES), pruned(*IMAGES))
    assert not any("of the MACs take" in line for line in lines)  # what was found is known
    assert count_costs(pruned, IMAGES).macs < 0.9 * count_costs(module, IMAGES).macs
    assert pruned(*IMAGES).shape == (2, 10)
