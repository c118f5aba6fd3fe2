"""What a module knows of its number of heads, besides the sizes of its layers, when some of them are removed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.fx import GraphModule, Node

_VIEWS = ("view", "reshape", "_unsafe_view")


def set_heads(
    narrow: nn.Module,
    original: nn.Module,
    inputs: Sequence[Tensor],
    names: Iterable[str],
    before: int,
    after: int,
) -> None:
    """Make `narrow`, an `original` whose layers `names` lost heads, take `after` heads where it took `before`.

    In a module these are attributes of the layers' parents, in a graph the sizes of views.
    """
    import torch

    if isinstance(narrow, torch.fx.GraphModule) and isinstance(original, torch.fx.GraphModule):
        _refit_views(narrow, original, inputs)
        return
    for parent in {name.rpartition(".")[0] for name in names}:
        holder = narrow.get_submodule(parent)
        for attribute, value in list(vars(holder).items()):
            is_count = "head" in attribute and "dim" not in attribute and "size" not in attribute
            if is_count and type(value) is int and value == before:
                setattr(holder, attribute, after)


def _refit_views(narrow: GraphModule, original: GraphModule, inputs: Sequence[Tensor]) -> None:
    import torch

    shapes = _shapes(original, inputs)

    class Refit(torch.fx.Interpreter):
        def run_node(self, n: Node) -> object:
            if _is_view(n):
                source, sizes = n.args[0], n.args[1]
                assert isinstance(source, torch.fx.Node)
                taken = tuple(self.env[source].shape)
                old = shapes.get(source.name)
                made = refit(old, taken, shapes[n.name]) if old not in (None, taken) else None
                if made is not None and isinstance(sizes, (list, tuple)):
                    kept = [
                        new if type(size) is int and size != -1 else size
                        for size, new in zip(sizes, made, strict=True)
                    ]
                    n.args = (source, kept, *n.args[2:])
            return super().run_node(n)

    with torch.no_grad():
        Refit(narrow, garbage_collect_values=False).run(*(tensor.clone() for tensor in inputs))
    narrow.recompile()


def refit(old: Sequence[int] | None, taken: Sequence[int], given: Sequence[int]) -> tuple[int, ...] | None:
    """Return what a view of `old` as `given` becomes for a tensor of shape `taken`; None when that is not clear.

    Sizes that are merged become their product; of sizes that are split the first one shrinks, which counts the heads.
    """
    if old is None or len(old) != len(taken):
        return None
    made: list[int] = []
    first, place = 0, 0
    while place < len(given):
        ins, outs = 1, 1  # the shortest runs of sizes on both sides with the same product
        last, end = first, place
        while (last == first and end == place) or ins != outs:
            if ins <= outs and last < len(old):
                ins *= old[last]
                last += 1
            elif end < len(given):
                outs *= given[end]
                end += 1
            else:
                return None
        new = math.prod(taken[first:last])
        run = list(given[place:end])
        if new != ins and len(run) == 1:
            run = [new]
        elif new != ins:
            fitting = [index for index, size in enumerate(run) if size > 1 and size * new % ins == 0]
            if not fitting:
                return None
            run[fitting[0]] = run[fitting[0]] * new // ins
        made += run
        first, place = last, end
    return tuple(made)


def _shapes(module: GraphModule, inputs: Sequence[Tensor]) -> Mapping[str, tuple[int, ...]]:
    import torch

    found: dict[str, tuple[int, ...]] = {}

    class Recorder(torch.fx.Interpreter):
        def run_node(self, n: Node) -> object:
            made = super().run_node(n)
            if isinstance(made, torch.Tensor):
                found[n.name] = tuple(made.shape)
            return made

    with torch.no_grad():
        Recorder(module).run(*(tensor.clone() for tensor in inputs))
    return found


def _is_view(node: Node) -> bool:
    name = getattr(node.target, "__name__", "")
    return node.op == "call_function" and name.split(".")[0] in _VIEWS and len(node.args) > 1
