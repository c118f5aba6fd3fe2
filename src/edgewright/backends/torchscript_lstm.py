"""LSTM layers in TorchScript: torch's fast kernel does not check the sizes of their initial state.

`torch.nn.LSTM` checks them in Python, which a trace leaves out. A state of another batch than the data's is then read
and written past its end. What is not sure of its batch therefore runs with the plain kernel, which checks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_LSTM = "aten::lstm"
# They take the type of their first input, and not its sizes.
_OF_A_TYPE = ("aten::new_zeros", "aten::new_ones", "aten::new_full", "aten::new_empty")
_NO_SIZE = ("prim::dtype", "prim::device", "prim::layout")


@contextmanager
def checked_states(has_lstm: bool) -> Iterator[None]:
    """With `has_lstm`, let LSTM layers run in torch's plain kernel, which refuses a state of the wrong sizes."""
    import torch

    was_enabled = torch._C._get_mkldnn_enabled()
    # Not by torch.backends.mkldnn.flags, which also sets what warns on machines without a certain GPU.
    torch._C._set_mkldnn_enabled(was_enabled and not has_lstm)
    try:
        yield
    finally:
        torch._C._set_mkldnn_enabled(was_enabled)


def calls_lstm(module: torch.nn.Module) -> bool:
    """Return whether a script, or a module of torch.export, has an LSTM layer."""
    import torch

    if isinstance(module, torch.jit.ScriptModule):
        return bool(_calls(module.inlined_graph))
    assert isinstance(module, torch.fx.GraphModule)
    return any(str(node.target).startswith("aten.lstm.") for node in module.graph.nodes)


def has_fixed_state(module: torch.jit.ScriptModule) -> bool:
    """Return whether the state of an LSTM layer is a constant, whose batch does not follow that of the inputs."""
    graph = module.inlined_graph  # its nodes live as long as it does
    given = {value.debugName() for value in list(graph.inputs())[1:]}
    return any(not _follows(_state(node), given) for node in _calls(graph))


def _calls(graph: torch._C.Graph) -> list[torch._C.Node]:
    return list(graph.findAllNodes(_LSTM, True))  # type: ignore[attr-defined]  # torch's stubs lack it


def _state(node: torch._C.Node) -> torch._C.Value:
    """Return the states of lstm(input, hx, ...) or lstm(data, batch_sizes, hx, ...)."""
    values = list(node.inputs())
    return next(value for value in values[1:] if value.type().kind() == "ListType")


def _follows(value: torch._C.Value, given: Iterable[str]) -> bool:
    """Return whether `value` is made of one of the values called `given`, or of their sizes."""
    wanted, seen, stack = set(given), set(), [value]
    while stack:
        here = stack.pop()
        if here.debugName() in wanted:
            return True
        if here.debugName() in seen:
            continue
        seen.add(here.debugName())
        made = here.node()
        if made.kind() in _NO_SIZE:
            continue
        stack += list(made.inputs())[made.kind() in _OF_A_TYPE :]
        for block in made.blocks():
            stack += block.outputs()
    return False
