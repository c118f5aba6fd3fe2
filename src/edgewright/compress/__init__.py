"""Passes that make a model smaller and faster, each also a function on live modules."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgewright.compress.clustering import cluster
    from edgewright.compress.distilling import distill
    from edgewright.compress.equalizing import equalize
    from edgewright.compress.pruning import prune
    from edgewright.compress.qat import quantize_aware
    from edgewright.compress.repairing import repair
    from edgewright.compress.sparsifying import sparsify
    from edgewright.compress.training import Trainer, TrainingOptions

# No module here has the name of a function: importing it would put the module in the function's place.
_HOMES = {
    "Trainer": "training",
    "TrainingOptions": "training",
    "cluster": "clustering",
    "distill": "distilling",
    "equalize": "equalizing",
    "prune": "pruning",
    "quantize_aware": "qat",
    "repair": "repairing",
    "sparsify": "sparsifying",
}

__all__ = [
    "Trainer",
    "TrainingOptions",
    "cluster",
    "distill",
    "equalize",
    "prune",
    "quantize_aware",
    "repair",
    "sparsify",
]


def __getattr__(name: str) -> object:
    """Import a public name when it is first used: a command that compresses nothing loads none of this."""
    if name not in _HOMES:
        raise AttributeError(f"module 'edgewright.compress' has no attribute {name!r}")
    return getattr(importlib.import_module(f"edgewright.compress.{_HOMES[name]}"), name)
