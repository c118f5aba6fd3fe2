"""Which groups of channels cannot be removed after all: it is tried, and the result is compared.

Python code with sizes written into it (`x.reshape(-1, 400)`) breaks when a layer gets narrower, or worse, gives
other numbers. So a unit of every group is removed from a copy, which must then compute what the module computes
when nothing reads that unit.
"""

from __future__ import annotations

import copy
import linecache
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgewright.compress.prune_graph import Dependencies, Group
from edgewright.compress.prune_heads import set_heads
from edgewright.core.errors import ConversionError, first_line

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

RTOL = 1e-3
_RESHAPES = ("view", "reshape", "_unsafe_view", "unflatten", "flatten", "expand", "as_strided", "repeat")
_ATTENTION = ("scaled_dot_product_attention", "multi_head_attention_forward")
_TORCH = "torch"
_SELF = str(Path(__file__))


@dataclass(frozen=True, kw_only=True)
class Blocked:
    """A group that stays whole.

    Attributes:
        why: what stands in the way: the operation, its tensor, and where it is.
        is_fixed: a size is written into the model, so its author can change that.
    """

    group: Group
    why: str
    is_fixed: bool


def find_blocked(
    module: nn.Module, examples: Sequence[Tensor], groups: Sequence[Group], heads: Mapping[str, int]
) -> list[Blocked]:
    """Return the groups of `module` that cannot lose channels, and why.

    Args:
        heads: layer -> number of heads, of the layers whose units are heads.
    """
    trial = _Trial(module, examples, heads)
    if not groups or trial.run(groups) is None:
        return []
    blocked = []
    for group in groups:
        found = trial.run([group])
        if found is not None:
            blocked.append(Blocked(group=group, why=found.why, is_fixed=found.is_fixed))
    sound = [group for group in groups if all(group is not entry.group for entry in blocked)]
    problem = trial.run(sound) if sound else None
    if problem is not None:
        raise ConversionError(
            f"layers {', '.join(g.root for g in sound)} can lose channels one by one, but not together: {problem.why}. "
            "Leave some of them whole (ignore)."
        )
    return blocked


@dataclass(frozen=True, kw_only=True)
class _Problem:
    why: str
    is_fixed: bool = False


class _Trial:
    """Removes units from copies of a module and compares."""

    def __init__(self, module: nn.Module, examples: Sequence[Tensor], heads: Mapping[str, int]) -> None:
        import torch

        self._module = module
        self._heads = heads
        # Two samples at least: a size that is not the batch must not pass for it.
        self._inputs = tuple(
            torch.cat([example, example]) if example.ndim else example for example in examples
        )
        try:
            self._shapes = [tuple(leaf.shape) for leaf in _outputs(module, self._inputs)]
        except Exception:  # a static batch
            self._inputs = tuple(example.detach().clone() for example in examples)
            self._shapes = [tuple(leaf.shape) for leaf in _outputs(module, self._inputs)]

    def run(self, groups: Sequence[Group]) -> _Problem | None:
        """Return what goes wrong when one unit of each of `groups` is removed, or None."""
        problem = self._removed(groups, is_compared=False)
        separate = [group for group in groups if group.is_separate]
        return problem or (self._removed(separate, is_compared=True) if separate else None)

    def _removed(self, groups: Sequence[Group], *, is_compared: bool) -> _Problem | None:
        narrow = copy.deepcopy(self._module)
        try:
            dependencies = Dependencies(narrow, self._inputs)
            for group in groups:
                dependencies.remove(group, _unit(group))
            for group in groups:
                own = [name for name in group.producers if name in self._heads]
                if own:
                    count = self._heads[own[0]]
                    set_heads(narrow, self._module, self._inputs, own, count, count - 1)
        except ConversionError as err:
            return _Problem(why=str(err))
        except Exception as err:
            return diagnose(self._module, narrow, self._inputs, err)
        try:
            outputs = _outputs(narrow, self._inputs)
        except Exception as err:
            return diagnose(self._module, narrow, self._inputs, err)
        shapes = [tuple(output.shape) for output in outputs]
        if shapes != self._shapes:
            return _Problem(why=f"the model's outputs would become {shapes}, not {self._shapes}")
        if is_compared:
            expected = _outputs(_unread(self._module, groups), self._inputs)
            for got, want in zip(outputs, expected, strict=True):
                scale = float(want.abs().max()) if want.numel() else 0.0
                if not want.is_floating_point() or float((got - want).abs().max()) <= RTOL * scale + 1e-6:
                    continue
                return _Problem(
                    why="without these channels the model does not compute what it computes when nothing reads them: "
                    "an operation across channels, with fixed sizes or a fixed order of channels, depends on them"
                )
        return None


def _unit(group: Group) -> tuple[int, ...]:
    """Return the unit that is tried: one from the middle, where shifted indices show."""
    return group.units[len(group.units) // 2]


def _unread(module: nn.Module, groups: Sequence[Group]) -> nn.Module:
    """Return a copy in which no layer reads the tried units."""
    import torch
    from torch.nn.modules.conv import _ConvNd

    changed = copy.deepcopy(module).eval()
    for group in groups:
        gone = torch.zeros(group.channels, dtype=torch.bool)
        gone[list(_unit(group))] = True
        for member in group.members:
            if member.side != "in" or member.kind not in ("conv", "linear"):
                continue
            layer = changed.get_submodule(member.name)
            weight = layer.weight
            assert isinstance(weight, torch.Tensor)
            index = member.index[gone[member.root]]
            with torch.no_grad():
                if isinstance(layer, _ConvNd) and layer.transposed:
                    weight[index] = 0
                elif isinstance(layer, _ConvNd):
                    size = layer.in_channels // layer.groups
                    rows = layer.out_channels // layer.groups
                    for channel in index.tolist():
                        first = channel // size * rows
                        weight[first : first + rows, channel % size] = 0
                else:
                    weight[:, index] = 0
    return changed


def _outputs(module: nn.Module, inputs: Sequence[Tensor]) -> list[Tensor]:
    import torch
    from torch.utils._pytree import tree_leaves

    module.eval()
    with torch.no_grad():
        leaves = tree_leaves(module(*(tensor.clone() for tensor in inputs)))
    return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]


@dataclass(kw_only=True)
class _Step:
    """One operation of a forward pass: what it is, where, and the shapes it had."""

    title: str
    where: str
    tensor: str
    taken: tuple[int, ...]
    given: tuple[int, ...] | None = None

    @property
    def is_reshape(self) -> bool:
        return self.title in _RESHAPES

    @property
    def text(self) -> str:
        return f"{self.title} of {self.tensor} {list(self.taken)} in {self.where}"


def diagnose(module: nn.Module, narrow: nn.Module, inputs: Sequence[Tensor], err: BaseException) -> _Problem:
    """Return which operation of `narrow`, a pruned `module`, fails with `err`, and through which fixed size."""
    before, after = _steps(module, inputs), _steps(narrow, inputs)
    has_attention = any(name in step.title for step in before for name in _ATTENTION)
    has_attention |= {"softmax", "bmm"} <= {step.title for step in before}
    has_attention |= {"softmax", "matmul"} <= {step.title for step in before}
    for old, new in zip(before, after, strict=False):
        if not new.is_reshape or old.taken == new.taken:
            continue
        is_stuck = new.given is None or new.given[1:] == (old.given or ())[1:]
        if is_stuck:
            source = (
                f"{old.title} makes {list(old.given or ())} of {old.tensor} {list(old.taken)} in {old.where}"
            )
            if has_attention and len(old.given or ()) != len(old.taken):
                return _Problem(why=f"attention with a fixed number of heads or channels: {source}")
            return _Problem(why=f"{source}, sizes written into the model", is_fixed=True)
    last = after[-1].text if after and after[-1].given is None else "the model"
    return _Problem(why=f"{last} fails: {first_line(err)[:200]}")


def _steps(module: nn.Module, inputs: Sequence[Tensor]) -> list[_Step]:
    """Return the operations of a forward pass up to its end or failure."""
    import torch

    steps: list[_Step] = []
    with torch.no_grad():
        try:
            if isinstance(module, torch.fx.GraphModule):
                _node_recorder(module, steps)(*(tensor.clone() for tensor in inputs))
            else:
                _run_recorded(module, inputs, steps)
        except Exception:  # the caller knows it already; what counts is how far it came
            pass
    return steps


def _node_recorder(module: torch.fx.GraphModule, steps: list[_Step]) -> Callable[..., object]:
    import torch

    class Recorder(torch.fx.Interpreter):
        def run_node(self, n: torch.fx.Node) -> object:
            if n.op not in ("call_function", "call_method", "call_module"):
                return super().run_node(n)
            args, _ = self.fetch_args_kwargs_from_env(n)
            source = n.args[0] if n.args else None
            step = _Step(
                title=_title(n),
                where=_place(n),
                tensor=repr(getattr(source, "name", "?")),
                taken=_shape(args[0] if args else None),
            )
            steps.append(step)
            made = super().run_node(n)
            step.given = _shape(made)
            return made

    return Recorder(module).run


def _run_recorded(module: nn.Module, inputs: Sequence[Tensor], steps: list[_Step]) -> None:
    from torch.overrides import TorchFunctionMode

    layers: list[str] = []

    class Recorder(TorchFunctionMode):
        def __torch_function__(
            self,
            func: Callable[..., object],
            types: object,
            args: tuple[object, ...] = (),
            kwargs: Mapping[str, object] | None = None,
        ) -> object:
            name = getattr(func, "__name__", "")
            if name in ("__get__", "size", "dim", "__set__", "numel"):
                return func(*args, **(kwargs or {}))
            behind = f"the output of {layers[-1]!r}" if layers else "the input"
            step = _Step(title=name, where=_caller(), tensor=behind, taken=_shape(args[0] if args else None))
            steps.append(step)
            made = func(*args, **(kwargs or {}))
            step.given = _shape(made)
            return made

    def note(name: str) -> Callable[..., None]:
        return lambda *_: layers.append(name)

    hooks = [
        layer.register_forward_hook(note(name))
        for name, layer in module.named_modules()
        if name and next(iter(layer.children()), None) is None
    ]
    try:
        with Recorder():
            module(*(tensor.clone() for tensor in inputs))
    finally:
        for hook in hooks:
            hook.remove()


def _title(node: torch.fx.Node) -> str:
    """Return the plain name of a node's operation: `aten.view.default` is a view."""
    if node.op == "call_module":
        return str(node.target)
    text = (
        str(node.target) if node.op == "call_method" else getattr(node.target, "__name__", str(node.target))
    )
    return text.split(".")[0]


def _place(node: torch.fx.Node) -> str:
    """Return the line of the source that a node came from, where it is known, and the node's name."""
    trace = [line.strip() for line in str(node.meta.get("stack_trace") or "").splitlines() if line.strip()]
    inner = ("/torch/", "/edgewright/")  # not the user's: of a bridge, for instance
    lines = [line for line in trace if line.startswith("File ") and not any(part in line for part in inner)]
    if not lines:
        return f"node {node.name!r}"
    place = lines[-1].split(",")
    code = trace[trace.index(lines[-1]) + 1 :][:1]
    name = Path(place[0].removeprefix("File ").strip('"')).name
    line = place[1].strip().removeprefix("line ") if len(place) > 1 else "?"
    return f"node {node.name!r} ({name}:{line}{': ' + code[0] if code else ''})"


def _caller() -> str:
    """Return the innermost line of Python outside torch and this module."""
    frame = sys._getframe(1)
    while frame.f_back is not None:
        path = frame.f_code.co_filename
        if path != _SELF and _TORCH not in Path(path).parts:
            line = linecache.getline(path, frame.f_lineno).strip()
            return f"{Path(path).name}:{frame.f_lineno}: {line}" if line else f"{path}:{frame.f_lineno}"
        frame = frame.f_back
    return "?"


def _shape(value: object) -> tuple[int, ...]:
    import torch

    return tuple(int(size) for size in value.shape) if isinstance(value, torch.Tensor) else ()
