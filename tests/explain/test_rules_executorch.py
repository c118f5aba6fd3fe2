"""What XNNPACK takes of a torch program, and what is left to portable kernels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edgewright.explain.coverage import Verdict
from edgewright.explain.rules import Judgement, judge

if TYPE_CHECKING:
    import torch

pytestmark = pytest.mark.toolchain("torch")


def _judged(module: torch.nn.Module, *inputs: torch.Tensor) -> Judgement:
    import torch

    from edgewright.explain.read_torch import torch_graph

    graph = torch_graph(torch.export.export(module.eval(), inputs), title="model")
    found = judge("executorch", graph)
    assert found is not None
    return found


def test_a_plain_cnn_is_one_piece() -> None:
    import torch
    from torch import nn

    found = _judged(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2)), torch.zeros(1, 3, 8, 8))
    assert {finding.verdict for finding in found.findings} == {Verdict.OK}
    assert (found.accelerator, found.partitions) == ("XNNPACK", 1)
    assert all(found.is_accelerated)


def test_what_the_partitioner_leaves_out_falls_back_and_parts_the_rest() -> None:
    import torch

    class Model(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cumsum(x.relu(), -1).sigmoid()

    found = _judged(Model(), torch.zeros(1, 8))
    assert [finding.verdict for finding in found.findings] == [Verdict.OK, Verdict.FALLBACK, Verdict.OK]
    assert found.partitions == 2


def test_conditions_of_the_partitioner_count() -> None:
    import torch

    class Model(torch.nn.Module):
        def __init__(self, dim: int) -> None:
            super().__init__()
            self.dim = dim

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.softmax(self.dim)

    assert _judged(Model(-1), torch.zeros(2, 3, 4)).findings[0].verdict is Verdict.OK
    first = _judged(Model(1), torch.zeros(2, 3, 4)).findings[0]
    assert first.verdict is Verdict.FALLBACK
    assert "last dimension" in first.reason


def test_integers_fall_back() -> None:
    import torch

    class Model(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + x

    finding = _judged(Model(), torch.zeros(1, 8, dtype=torch.int64)).findings[0]
    assert finding.verdict is Verdict.FALLBACK
    assert "int64" in finding.reason
