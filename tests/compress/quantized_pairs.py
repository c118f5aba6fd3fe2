"""A small float module and its int8 twin, for the tests of what corrects int8 modules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgewright.backends.vendor import load_exported, quiet
from edgewright.compress.module import fold_batch_norm, layered, trace
from edgewright.compress.quantize import quantize_exported
from edgewright.sources.torch_export import export_module

if TYPE_CHECKING:
    import torch
    from torch import nn
    from torch.fx import GraphModule

    from edgewright.compress.int8_quantizer import LayerScheme


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A float module with batch normalisation folded, the same quantized, and the batches that it was made with."""

    reference: GraphModule
    quantized: GraphModule
    batches: list[tuple[torch.Tensor, ...]]


def images(count: int = 96, *, seed: int = 4) -> torch.Tensor:
    """Return smooth images float32 [count, 3, 8, 8]: for white noise the nearest integer would be the best."""
    import torch

    coarse = torch.randn(count, 3, 3, 3, generator=torch.Generator().manual_seed(seed)) + 0.6
    return torch.nn.functional.interpolate(coarse, size=(8, 8), mode="bilinear", align_corners=True)


def network() -> nn.Module:
    """Return a seeded network with a residual sum and layers `stem`, `depthwise`, `pointwise`, `classify`."""
    import torch
    from torch import nn

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 8, 3, bias=False)
            self.norm = nn.BatchNorm2d(8)
            self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
            self.pointwise = nn.Conv2d(8, 8, 1)
            self.classify = nn.Linear(8, 5, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = torch.relu(self.norm(self.stem(x)))
            x = x + torch.relu(self.pointwise(torch.relu(self.depthwise(x))))
            return self.classify(x.mean((2, 3)))

    torch.manual_seed(2)
    made = Network().train()
    with torch.no_grad():
        for _ in range(3):
            made(images(seed=8))
    return made.eval()


def make_pair(folder: Path, *, layers: Mapping[str, LayerScheme] | None = None) -> Pair:
    """Return the network in float and in int8; `layers` may have other precisions."""
    batches = [(part,) for part in images().split(32)]
    reference = fold_batch_norm(trace(network(), batches[0]))
    program = export_module(reference, batches[0], workdir=folder, origin="reference")
    with quiet():
        made = quantize_exported(
            load_exported(program), program.inputs, batches, origin="reference", layers=layers
        )
        return Pair(reference=reference, quantized=layered(made), batches=batches)
