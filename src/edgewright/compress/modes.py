"""Training and evaluation mode of any module, graphs of torch.export too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def set_mode(module: torch.nn.Module, *, training: bool) -> None:
    """Put `module` into training or evaluation mode, graphs of torch.export in it too."""
    import torch

    try:
        module.train(training)
    except NotImplementedError:  # torch.export forbids it: there the mode is an argument of operators
        for layer in module.modules():
            layer.training = training
            if isinstance(layer, torch.fx.GraphModule):
                _set_operators(layer, training=training)


@contextmanager
def evaluating(*modules: torch.nn.Module) -> Iterator[None]:
    """Put modules into evaluation mode; the mode of every layer is put back afterwards."""
    modes = [{name: layer.training for name, layer in module.named_modules()} for module in modules]
    for module in modules:
        set_mode(module, training=False)
    try:
        yield
    finally:
        for module, mode in zip(modules, modes, strict=True):
            if mode[""]:
                set_mode(module, training=True)
            for name, layer in module.named_modules():
                layer.training = mode[name]


def _set_operators(graph: torch.fx.GraphModule, *, training: bool) -> None:
    """Set the mode of dropout and batch normalisation in `graph`.

    Not by torchao's allow_exported_model_train_eval: it makes every dropout one of 0.5, or misses it.
    """
    import torch

    places = {torch.ops.aten.dropout.default: 2, torch.ops.aten.batch_norm.default: 5}
    for node in graph.graph.nodes:
        if node.target in places:
            node.update_arg(places[node.target], training)
    graph.recompile()
