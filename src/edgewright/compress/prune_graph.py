"""Which channels of a module belong together, what removing them saves, and their removal.

torch-pruning finds the dependencies: a channel of one layer goes with the same channel of its normalisation, of the
layers that read it, and of everything that it is added to.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from edgewright.core.errors import ConversionError, first_line

if TYPE_CHECKING:
    from torch import Tensor, nn

Side = Literal["in", "out"]

# Layers that make channels of their own; the others pass on what they get.
_ROOTS = frozenset(("conv", "linear", "mha"))

# Through these a channel passes by itself: what a removed channel would have given is simply absent.
_SEPARATE = frozenset(("conv", "linear", "bn", "prelu", "in", "depthwise", "embed", "parameter"))


@dataclass(frozen=True, kw_only=True)
class Member:
    """One side of one layer that loses channels with its group.

    Attributes:
        name: of the layer, or of a parameter that belongs to none.
        kind: "conv", "depthwise", "linear", "bn", "ln", "gn", "in", "prelu", "embed", "mha", "parameter" or "lstm".
        index: int64 [k], channels of this side.
        root: int64 [k], the channel of the group's root that each of them goes with.
    """

    name: str
    kind: str
    side: Side
    index: Tensor
    root: Tensor


@dataclass(frozen=True, kw_only=True)
class Group:
    """Channels that can be removed, together with all that depends on them.

    Attributes:
        root: the layer whose output channels count, 0 to `channels` - 1.
        units: channels of the root that only go together: one each, a head, or one of every group of a layer.
        members: the root first.
    """

    root: str
    channels: int
    units: tuple[tuple[int, ...], ...]
    members: tuple[Member, ...]

    @property
    def producers(self) -> tuple[str, ...]:
        """The layers whose outputs become fewer."""
        names = [m.name for m in self.members if m.side == "out" and m.kind in _ROOTS]
        return tuple(dict.fromkeys(names))

    @property
    def is_separate(self) -> bool:
        """Whether removing a channel is the same as nobody reading it: nothing is computed over all channels."""
        return all(member.kind in _SEPARATE for member in self.members)


@dataclass(frozen=True, kw_only=True)
class Structure:
    """The groups of a module.

    Attributes:
        groups: those that can lose channels, as far as the dependencies tell.
        whole: layer -> why its outputs stay: asked for, the model's output, or shared weights.
    """

    groups: tuple[Group, ...]
    whole: Mapping[str, str]


class Dependencies:
    """The dependency graph of a module. The module's parameters want gradients from then on."""

    def __init__(self, module: nn.Module, examples: Sequence[Tensor]) -> None:
        """Trace `module`, which is put into evaluation mode.

        Raises:
            ConversionError: the module cannot be traced.
        """
        import torch
        import torch_pruning

        module.eval()
        for parameter in module.parameters():
            parameter.requires_grad_(parameter.is_floating_point() or parameter.is_complex())
        self.module = module
        self._names: dict[object, str] = {layer: name for name, layer in module.named_modules()}
        self._names |= {parameter: name for name, parameter in module.named_parameters()}
        self._graph = torch_pruning.DependencyGraph()
        with torch.enable_grad():
            self._outputs = _output_layers(module, examples)
            try:
                self._graph.build_dependency(
                    module, tuple(e.detach().clone() for e in examples), verbose=False
                )
            except Exception as err:
                raise ConversionError(
                    f"the dependencies between channels cannot be found: {type(err).__name__}: {first_line(err)}. "
                    "The module must be differentiable and take the example inputs."
                ) from err
        self._outputs = self._cut_outputs(self._outputs)

    def structure(self, ignored: Iterable[str], heads: Mapping[str, int]) -> Structure:
        """Return the groups.

        Args:
            ignored: layers whose outputs stay.
            heads: layer -> number of heads that its outputs make up, equally wide.
        """
        whole = dict.fromkeys(self._outputs, "gives an output of the model")
        whole |= dict.fromkeys(_sharing(self.module), "shares its weight with another layer")
        whole |= dict.fromkeys(ignored, "is ignored")
        groups: list[Group] = []
        seen: set[str] = set()
        for layer in list(self._graph.module2node):
            name = self._names.get(layer)
            if name is None or name in seen or _kind(layer) not in _ROOTS:
                continue
            found = self._group(layer)
            outs = [member.name for member in found if member.side == "out"]
            seen.update(outs)
            reason = next((whole[other] for other in outs if other in whole), "")
            channels = self._graph.get_out_channels(layer)
            if reason:
                for other in (
                    member.name for member in found if member.side == "out" and member.kind in _ROOTS
                ):
                    whole.setdefault(other, f"goes with a layer that {reason}")
                continue
            units = _units(found, self.module, channels, heads)
            if len(units) > 1:
                groups.append(Group(root=name, channels=channels, units=units, members=tuple(found)))
        return Structure(groups=tuple(groups), whole=whole)

    def _cut_outputs(self, outputs: Iterable[str]) -> list[str]:
        """Return the layers whose channels reach the outputs, and cut off what lies between.

        They stay whole, so nothing needs to know how their channels go on: the heads of detectors turn them around
        and join them in ways whose following takes minutes.
        """
        nodes = self._graph.module2node
        ends = [node for module, node in nodes.items() if type(module).__name__ == "_OutputOp"]
        ends += [nodes[layer] for name in outputs if (layer := self._layer(name)) in nodes]
        tail: set[object] = set()
        found: list[str] = []
        while ends:
            node = ends.pop()
            if node in tail:
                continue
            if _kind(node.module) in _ROOTS:
                found.append(self._names[node.module])
                continue
            tail.add(node)
            ends += node.inputs
        for node in nodes.values():
            is_cut = node in tail
            node.dependencies = [] if is_cut else [d for d in node.dependencies if d.target not in tail]
        return list(dict.fromkeys(found))

    def _layer(self, name: str) -> object:
        found: object = self.module
        for part in name.split("."):
            found = getattr(found, part)
        return found

    def _group(self, layer: object) -> list[Member]:
        import torch

        pruner = self._graph.get_pruner_of_module(layer)
        channels = self._graph.get_out_channels(layer)
        raw = self._graph.get_pruning_group(layer, pruner.prune_out_channels, list(range(channels)))
        members: list[Member] = []
        for item in raw:
            target = item.dep.target.module
            title = self._names.get(target)
            if title is None:
                continue
            is_out = self._graph.is_out_channel_pruning_fn(item.dep.handler)
            members.append(
                Member(
                    name=title,
                    kind=_kind(target),
                    side="out" if is_out else "in",
                    index=torch.tensor([int(i) for i in item.idxs], dtype=torch.int64),
                    root=torch.tensor([int(i) for i in item.root_idxs], dtype=torch.int64),
                )
            )
        return members

    def remove(self, group: Group, channels: Sequence[int]) -> None:
        """Remove `channels` of the root of `group`, in place.

        Raises:
            ConversionError: torch-pruning cannot.
        """
        layer = self._layer(group.root)
        pruner = self._graph.get_pruner_of_module(layer)
        try:
            raw = self._graph.get_pruning_group(layer, pruner.prune_out_channels, list(channels))
            is_possible = self._graph.check_pruning_group(raw)
            if is_possible:
                raw.prune()
        except Exception as err:
            raise ConversionError(
                f"{len(channels)} channels of layer {group.root!r} cannot be removed: {first_line(err)}. "
                f"Leave it whole with ignore=[{group.root!r}]."
            ) from err
        if not is_possible:
            raise ConversionError(
                f"layer {group.root!r} or one that depends on it would lose all its channels. Remove less."
            )


def match(patterns: Iterable[str], names: Iterable[str]) -> dict[str, str]:
    """Return name -> the first of `patterns` (names or globs) that it matches."""
    known = list(names)
    found: dict[str, str] = {}
    for pattern in patterns:
        for name in fnmatch.filter(known, pattern):
            found.setdefault(name, pattern)
    return found


def _kind(layer: object) -> str:
    from torch import nn
    from torch.nn.modules.batchnorm import _BatchNorm
    from torch.nn.modules.conv import _ConvNd
    from torch.nn.modules.instancenorm import _InstanceNorm

    if isinstance(layer, _ConvNd):
        return "depthwise" if layer.groups == layer.out_channels > 1 else "conv"
    kinds: tuple[tuple[type, str], ...] = (
        (nn.Linear, "linear"),
        (_InstanceNorm, "in"),
        (_BatchNorm, "bn"),
        (nn.LayerNorm, "ln"),
        (nn.GroupNorm, "gn"),
        (nn.PReLU, "prelu"),
        (nn.Embedding, "embed"),
        (nn.MultiheadAttention, "mha"),
        (nn.LSTM, "lstm"),
        (nn.Parameter, "parameter"),
    )
    return next((kind for cls, kind in kinds if isinstance(layer, cls)), "other")


def _units(
    members: Sequence[Member], module: nn.Module, channels: int, heads: Mapping[str, int]
) -> tuple[tuple[int, ...], ...]:
    """Return the sets of root channels that must go together."""
    parent = list(range(channels))

    def top(channel: int) -> int:
        while parent[channel] != channel:
            parent[channel] = parent[parent[channel]]
            channel = parent[channel]
        return channel

    for member in members:
        key = _unit_key(member, module, heads)
        if key is None:
            continue
        first: dict[int, int] = {}
        for index, root in zip(member.index.tolist(), member.root.tolist(), strict=True):
            other = first.setdefault(key(index), root)
            parent[top(root)] = top(other)
    units: dict[int, list[int]] = {}
    for channel in range(channels):
        units.setdefault(top(channel), []).append(channel)
    return tuple(tuple(unit) for unit in units.values())


def _unit_key(member: Member, module: nn.Module, heads: Mapping[str, int]) -> _Key | None:
    """Return what two channels of a member have in common when they only go together."""
    from torch import nn
    from torch.nn.modules.conv import _ConvNd

    if member.side == "out" and member.name in heads:
        layer = module.get_submodule(member.name)
        assert isinstance(layer, nn.Linear)
        width = layer.out_features // heads[member.name]
        return _Key(width=width, is_block=True)
    if member.kind not in ("conv", "gn", "mha"):
        return None
    layer = module.get_submodule(member.name)
    if isinstance(layer, _ConvNd) and layer.groups > 1:
        # Every group of a grouped convolution keeps equally many, at the same places.
        size = layer.in_channels if member.side == "in" else layer.out_channels
        return _Key(width=size // layer.groups)
    if isinstance(layer, nn.GroupNorm):
        return _Key(width=layer.num_channels // layer.num_groups)
    if isinstance(layer, nn.MultiheadAttention):
        return _Key(width=layer.embed_dim // layer.num_heads)
    return None


@dataclass(frozen=True, kw_only=True)
class _Key:
    width: int
    is_block: bool = False

    def __call__(self, index: int) -> int:
        return index // self.width if self.is_block else index % self.width


def _sharing(module: nn.Module) -> list[str]:
    """Return the layers with a weight that another layer has too."""
    owners: dict[int, list[str]] = {}
    for name, layer in module.named_modules():
        for parameter in layer.parameters(recurse=False):
            owners.setdefault(id(parameter), []).append(name)
    return [name for names in owners.values() if len(names) > 1 for name in names]


def _output_layers(module: nn.Module, examples: Sequence[Tensor]) -> list[str]:
    """Return the layers whose own outputs are outputs of the module."""
    import torch
    from torch.utils._pytree import tree_leaves

    made: dict[object, str] = {}
    hooks = [
        layer.register_forward_hook(
            lambda _, __, output, name=name: made.update(
                {t.grad_fn: name for t in tree_leaves(output) if isinstance(t, torch.Tensor) and t.grad_fn}
            )
        )
        for name, layer in module.named_modules()
        if name and _kind(layer) != "other"
    ]
    try:
        outputs = module(*(example.detach().clone() for example in examples))
    except Exception as err:
        raise ConversionError(
            f"the module does not take the example inputs: {first_line(err)}. Give the shapes of forward()."
        ) from err
    finally:
        for hook in hooks:
            hook.remove()
    found = [leaf.grad_fn for leaf in tree_leaves(outputs) if isinstance(leaf, torch.Tensor)]
    if not any(found):
        raise ConversionError(
            "the module's outputs do not depend on its weights by gradients, so nothing can be pruned."
        )
    return [made[node] for node in found if node in made]


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a layer costs, and how that falls with its channels.

    Attributes:
        outs, ins: channels; 0 where the cost does not depend on them.
        matrix: parameters that fall with both sides; vector: with the outputs alone.
    """

    macs: int
    matrix: int
    vector: int
    outs: int
    ins: int


@dataclass(frozen=True, kw_only=True)
class Costs:
    """The costs of all layers of a module, and the totals that were counted by running it."""

    layers: Mapping[str, Cost]
    macs: int
    parameters: int
    _removed: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    def total(self, what: Literal["macs", "parameters"], removed: Mapping[tuple[str, Side], int]) -> float:
        """Return the MACs or parameters with `removed` channels less: (layer, side) -> channels."""
        saved = 0.0
        for name in {name for name, _ in removed}:
            cost = self.layers.get(name)
            if cost is None:
                continue
            outs = 1 - removed.get((name, "out"), 0) / cost.outs if cost.outs else 1.0
            ins = 1 - removed.get((name, "in"), 0) / cost.ins if cost.ins else 1.0
            if what == "macs":
                saved += cost.macs * (1 - outs * ins)
            else:
                saved += cost.matrix * (1 - outs * ins) + cost.vector * (1 - outs)
        return (self.macs if what == "macs" else self.parameters) - saved


def count_costs(module: nn.Module, examples: Sequence[Tensor]) -> Costs:
    """Return what `module`, in evaluation mode, costs per sample.

    MACs are those of convolutions, matrix products and attention, as torch counts them (half of the operations).
    """
    import torch
    from torch import nn
    from torch.nn.modules.conv import _ConvNd
    from torch.utils.flop_counter import FlopCounterMode

    batch = examples[0].shape[0] if examples[0].ndim else 1
    own: dict[str, int] = {}

    def note(name: str) -> object:
        def hook(layer: nn.Module, inputs: tuple[Tensor, ...], output: object) -> None:
            weight = layer.weight
            assert isinstance(weight, torch.Tensor)
            assert isinstance(output, torch.Tensor)
            is_transposed = isinstance(layer, _ConvNd) and layer.transposed
            data = inputs[0] if is_transposed else output
            macs = data.numel() * weight[0].numel() // batch
            own[name] = own.get(name, 0) + macs

        return hook

    layers = {name: layer for name, layer in module.named_modules() if _kind(layer) != "other"}
    hooks = [
        layer.register_forward_hook(note(name))  # type: ignore[arg-type]
        for name, layer in layers.items()
        if isinstance(layer, (_ConvNd, nn.Linear))
    ]
    # On the CPU the fused kernel of attention is not counted; made of products it is.
    from torch.nn.attention import SDPBackend, sdpa_kernel

    counter = FlopCounterMode(display=False)
    try:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
            module(*(example.detach().clone() for example in examples))
    finally:
        for hook in hooks:
            hook.remove()
    return Costs(
        layers={name: _cost(layer, own.get(name, 0)) for name, layer in layers.items()},
        macs=counter.get_total_flops() // 2 // batch,
        parameters=sum(parameter.numel() for parameter in module.parameters()),
    )


def _cost(layer: nn.Module, macs: int) -> Cost:
    from torch import nn
    from torch.nn.modules.conv import _ConvNd

    count = sum(p.numel() for p in layer.parameters())
    if isinstance(layer, (_ConvNd, nn.Linear)):
        vector = 0 if layer.bias is None else layer.bias.numel()
        if isinstance(layer, nn.Linear):
            outs, ins = layer.out_features, layer.in_features
        else:
            outs, ins = layer.out_channels, layer.in_channels
        if _kind(layer) == "depthwise":
            ins = 0
        return Cost(macs=macs, matrix=count - vector, vector=vector, outs=outs, ins=ins)
    if isinstance(layer, nn.MultiheadAttention):
        return Cost(macs=0, matrix=count, vector=0, outs=layer.embed_dim, ins=layer.embed_dim)
    width = next((p.shape[-1] for p in layer.parameters(recurse=False)), 0)
    return Cost(macs=0, matrix=0, vector=count, outs=width, ins=0)


def removed_channels(chosen: Iterable[tuple[Group, Sequence[int]]]) -> dict[tuple[str, Side], int]:
    """Return (layer, side) -> how many channels it loses when the root channels `chosen` go."""
    import torch

    removed: dict[tuple[str, Side], int] = {}
    for group, channels in chosen:
        gone = torch.zeros(group.channels, dtype=torch.int64)
        gone[list(channels)] = 1
        for member in group.members:
            key = (member.name, member.side)
            removed[key] = removed.get(key, 0) + int(gone[member.root].sum())
    return removed
