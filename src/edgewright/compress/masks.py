"""Masks on the weights of a module: which weights stay zero while any loop trains it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from edgewright.compress.module import weighted_layers

if TYPE_CHECKING:
    import torch

    from edgewright.compress.weight_modules import Mask

# A layer with fewer zeros than this got them by chance, not from an earlier pass.
SPARSE_SHARE = 0.01


def is_sparse(weight: torch.Tensor) -> bool:
    """Return whether the zeros of `weight` are meant: at least 1 % of it is exactly zero."""
    return weight.numel() > 0 and zero_share(weight) >= SPARSE_SHARE


def zero_share(weight: torch.Tensor) -> float:
    """Return the share of exact zeros, 0..1."""
    return 1.0 - int(weight.detach().count_nonzero()) / max(1, weight.numel())


@contextmanager
def zeros_kept(module: torch.nn.Module) -> Iterator[None]:
    """Keep the zeros of sparse layers of `module` at zero, however it is trained inside the block.

    Layers whose weight is parametrized already are left alone: who did that keeps what it wants to keep.
    """
    from torch.nn.utils import parametrize

    free = {
        name: layer
        for name, layer in weighted_layers(module).items()
        if not parametrize.is_parametrized(layer, "weight") and is_sparse(weight_of(layer))
    }
    with masked(free):
        yield


@contextmanager
def masked(layers: Mapping[str, torch.nn.Module]) -> Iterator[dict[str, Mask]]:
    """Put masks on the weights of `layers`, true where a weight is not zero; removed at the end of the block.

    Raises:
        ConversionError: something else computes a weight already.
    """
    from edgewright.compress.weight_modules import Mask, hold, release

    masks: dict[str, Mask] = {}
    try:
        for name, layer in layers.items():
            mask = Mask(weight_of(layer) != 0)
            hold(layer, "weight", mask, title=name)
            masks[name] = mask
        yield masks
    finally:
        for name in masks:
            release(layers[name], "weight")


def weight_of(layer: torch.nn.Module) -> torch.Tensor:
    """Return the weight that the layer computes with, detached."""
    import torch

    weight = layer.weight
    assert isinstance(weight, torch.Tensor)
    return weight.detach()
