"""Cross-layer equalization: the same function with channels of like size, so that one int8 scale fits them all.

Between two layers, channel i may be divided by s_i > 0 and the next layer's weights for it multiplied by s_i:
relu(w x + b) / s = relu((w / s) x + b / s). Source: Nagel et al. (2019), "Data-free quantization through weight
equalization and bias correction", section 4.1, and 4.1.3 for the absorption of high biases.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgewright.compress.module import fold_batch_norm, trace
from edgewright.core.errors import ConversionError

if TYPE_CHECKING:
    import torch
    from torch.fx import Graph, GraphModule, Node
    from torch.utils.hooks import RemovableHandle

    from edgewright.compress.passes import Batch

# f(s x) = s f(x) for every s > 0 and each channel on its own.
_HOMOGENEOUS = frozenset(
    (
        "aten.relu.default",
        "aten.relu_.default",
        "aten.leaky_relu.default",
        "aten.leaky_relu_.default",
        "aten.max_pool1d.default",
        "aten.max_pool2d.default",
        "aten.max_pool3d.default",
        "aten.avg_pool1d.default",
        "aten.avg_pool2d.default",
        "aten.avg_pool3d.default",
        "aten.adaptive_avg_pool1d.default",
        "aten.adaptive_avg_pool2d.default",
        "aten.adaptive_max_pool2d.default",
        "aten.contiguous.default",
        "aten.clone.default",
    )
)
_RELU = frozenset(("aten.relu.default", "aten.relu_.default"))
_POINTWISE = _RELU | {"aten.leaky_relu.default", "aten.leaky_relu_.default", "aten.clone.default"}
_RELU6 = frozenset(
    ("aten.relu6.default", "aten.relu6_.default", "aten.hardtanh.default", "aten.hardtanh_.default")
)
_FLATTEN = "aten.flatten.using_ints"
_MEAN = "aten.mean.dim"
_PADS = frozenset(("aten.pad.default", "aten.constant_pad_nd.default"))
_AVERAGES = frozenset(("aten.avg_pool1d.default", "aten.avg_pool2d.default", "aten.avg_pool3d.default"))
_MAX_ROUNDS = 50
_CONVERGED = 1e-3  # largest change of a scale in one round
_MAX_OCTAVES = 24.0  # of one channel against the middle one: more would leave float32's own precision
_DEAD = 1e-6  # channels below this share of the largest hold nothing worth a scale


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two layers with only channel-wise homogeneous operators between them.

    Attributes:
        first, second: names of the layers.
        channels: outputs of `first`; each is one input of `second`, or several side by side behind a flatten.
        between: the operators, in order.
    """

    first: str
    second: str
    channels: int
    between: tuple[Node, ...]


def equalize(
    module: torch.nn.Module,
    example_inputs: Sequence[torch.Tensor],
    *,
    calibration: Sequence[Batch] = (),
    replace_relu6: bool = False,
) -> GraphModule:
    """Return `module` with batch normalisation folded and its channels equalized; it computes the same.

    Chains of layers are equalized together: pointwise, depthwise, pointwise. What has other users (residual sums,
    concatenations), another activation, or a layer called twice ends a pair.

    Args:
        example_inputs: the tensors of one call, batch axis first.
        calibration: real inputs. With them a channel's size is the largest value that it reaches, else that of the
            weights that make it. Only with them are high biases absorbed: what a channel always exceeds moves into the
            next layer's bias, which leaves these inputs' outputs as they are.
        replace_relu6: make relu6 between two layers relu, which changes the function where it clips.
    Raises:
        ConversionError: the module is quantized already, or no two layers can be equalized.
    """
    return equalize_traced(
        trace(module, example_inputs), calibration=calibration, replace_relu6=replace_relu6
    )


def equalize_traced(
    module: GraphModule, *, calibration: Sequence[Batch] = (), replace_relu6: bool = False
) -> GraphModule:
    """Return `equalize` of a module as `compress.module` makes it."""
    import torch

    made = fold_batch_norm(module)
    if replace_relu6:
        _replace_relu6(made)
    pairs = find_pairs(made)
    if not pairs:
        raise ConversionError(
            "no two layers of the model can be equalized: between them there must be relu or pooling alone, and no "
            "other user of the value between. Leave equalization out."
        )
    with torch.no_grad():
        sizes = _activation_sizes(made, pairs, calibration) if calibration else None
        _scale(made, pairs, sizes)
        if calibration:
            _absorb(made, pairs, calibration)
    return made


def find_pairs(module: GraphModule) -> tuple[Pair, ...]:
    """Return the pairs of layers that can be equalized, in order of execution.

    Raises:
        ConversionError: a layer is quantized.
    """
    from torch import nn

    layers = dict(module.named_modules())
    counts = call_counts(module.graph)
    kinds = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
    pairs = []
    for node in module.graph.nodes:
        first = layers.get(str(node.target)) if node.op == "call_module" else None
        if not isinstance(first, kinds):
            continue
        if hasattr(first, "weight_quantizer"):
            raise ConversionError(
                f"layer {node.target} is quantized already. Give the float model to equalize."
            )
        between, last = _follow(node, layers)
        user = next(iter(last.users)) if len(last.users) == 1 else None
        second = layers.get(str(user.target)) if user is not None and user.op == "call_module" else None
        if not isinstance(second, kinds) or counts[str(node.target)] + counts[str(user.target)] != 2:  # type: ignore[union-attr]
            continue
        pair = Pair(
            first=str(node.target),
            second=str(user.target),  # type: ignore[union-attr]
            channels=int(first.weight.shape[0]),
            between=between,
        )
        if _keeps_channels(first, second, pair, last):
            pairs.append(pair)
    return tuple(pairs)


def _keeps_channels(first: torch.nn.Module, second: torch.nn.Module, pair: Pair, last: Node) -> bool:
    """Return whether what `second` takes as its inputs are the channels of `first`."""
    from torch import nn

    if isinstance(
        first, nn.Linear
    ):  # its channels are the last axis, which pooling and flatten do not leave alone
        kinds = {str(node.target) for node in pair.between if node.op == "call_function"}
        return isinstance(second, nn.Linear) and kinds <= _POINTWISE
    value = last.meta.get("val")
    return not isinstance(second, nn.Linear) or getattr(value, "ndim", 0) == 2


def call_counts(graph: Graph) -> dict[str, int]:
    """Return how often each submodule is called."""
    counts: dict[str, int] = {}
    for node in graph.nodes:
        if node.op == "call_module":
            counts[str(node.target)] = counts.get(str(node.target), 0) + 1
    return counts


def _follow(node: Node, layers: Mapping[str, torch.nn.Module]) -> tuple[tuple[Node, ...], Node]:
    """Return the homogeneous operators behind `node`, and the last of them (or `node`)."""
    from torch import nn

    between: list[Node] = []
    while len(node.users) == 1:
        user = next(iter(node.users))
        layer = layers.get(str(user.target)) if user.op == "call_module" else None
        if not (isinstance(layer, nn.Dropout | nn.PReLU) or _is_homogeneous(user)):
            break
        between.append(user)
        node = user
    return tuple(between), node


def _is_homogeneous(node: Node) -> bool:
    kind = str(node.target)
    if kind == _FLATTEN:
        return bool((*node.args[1:], 1)[0] == 1 and (*node.args[2:], -1)[0] == -1)
    if kind == _MEAN:
        source, axes = node.args[:2]
        rank = getattr(getattr(source, "meta", {}).get("val"), "ndim", 0)
        if rank < 3 or not isinstance(axes, list | tuple):
            return False
        return not {0, 1} & {axis % rank for axis in axes if isinstance(axis, int)}
    if kind in _PADS:
        return _pads_pixels_with_zeros(node)
    return node.op == "call_function" and kind in _HOMOGENEOUS


def _pads_pixels_with_zeros(node: Node) -> bool:
    source, widths, *rest = node.args
    rank = getattr(getattr(source, "meta", {}).get("val"), "ndim", 0)
    if not isinstance(widths, list | tuple) or len(widths) > 2 * (rank - 2):
        return False
    return all(value in ("constant", None, 0) for value in rest)


def _is_flattened(between: Sequence[Node]) -> bool:
    return any(str(node.target) == _FLATTEN for node in between)


def _replace_relu6(module: GraphModule) -> None:
    import torch

    for node in module.graph.nodes:
        if str(node.target) not in _RELU6:
            continue
        if "hardtanh" in str(node.target) and [float(v) for v in node.args[1:3]] != [0.0, 6.0]:
            continue
        node.target, node.args = torch.ops.aten.relu.default, node.args[:1]
    module.recompile()


def _activation_sizes(
    module: GraphModule, pairs: Sequence[Pair], calibration: Sequence[Batch]
) -> dict[str, torch.Tensor]:
    """Return first layer -> largest |value| of each channel where the second layer reads it: float64 [channels]."""
    import torch

    sizes = {pair.first: torch.zeros(pair.channels, dtype=torch.float64) for pair in pairs}
    handles = []

    def watch(pair: Pair) -> None:
        def hook(layer: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            found = _by_channel(inputs[0], pair, layer).abs().amax(dim=1).double()
            sizes[pair.first] = torch.maximum(sizes[pair.first], found)

        handles.append(module.get_submodule(pair.second).register_forward_pre_hook(hook))

    for pair in pairs:
        watch(pair)
    _run(module, calibration, handles)
    return sizes


def _by_channel(value: torch.Tensor, pair: Pair, layer: torch.nn.Module) -> torch.Tensor:
    """Return the input of `layer` as [channels of the first layer, all the rest]."""
    from torch import nn

    if isinstance(layer, nn.Linear) and not _is_flattened(pair.between):
        return value.flatten(0, -2).T
    if isinstance(layer, nn.Linear):
        value = value.reshape(len(value), pair.channels, -1)
    return value.transpose(0, 1).flatten(1)


def _run(module: GraphModule, batches: Sequence[Batch], handles: Sequence[RemovableHandle]) -> None:
    try:
        for batch in batches:
            module(*batch)
    finally:
        for handle in handles:
            handle.remove()


def _scale(module: GraphModule, pairs: Sequence[Pair], sizes: dict[str, torch.Tensor] | None) -> None:
    """Divide and multiply in rounds, until no scale changes any more: chains influence each other."""
    for _ in range(_MAX_ROUNDS):
        change = 0.0
        for pair in pairs:
            first, second = module.get_submodule(pair.first), module.get_submodule(pair.second)
            scale = _scale_of(first, second, pair, None if sizes is None else sizes[pair.first])
            change = max(change, float(scale.log().abs().max()))
            _divide(first, scale)
            _multiply(second, scale, pair)
            if sizes is not None:
                sizes[pair.first] = sizes[pair.first] / scale
        if change < _CONVERGED:
            return


def _scale_of(
    first: torch.nn.Module, second: torch.nn.Module, pair: Pair, size: torch.Tensor | None
) -> torch.Tensor:
    """Return s: float64 [channels], 1 in the geometric mean.

    s_i = sqrt(r1_i / r2_i), the ranges of the channel before and behind (Nagel et al., equation 11). A depthwise
    layer has a weight scale for each channel, so only the value between the two is balanced: s_i = r1_i.
    """
    import torch

    assert isinstance(first.weight, torch.Tensor)
    assert isinstance(second.weight, torch.Tensor)
    before = first.weight.detach().double().flatten(1).abs().amax(1) if size is None else size
    grouped = _columns(second.weight.detach().double(), second, pair)
    behind = grouped.abs().amax(dim=(1, 3)).flatten()
    is_alive = (before > before.max() * _DEAD) & (behind > behind.max() * _DEAD)
    is_depthwise = grouped.shape[2] == 1
    ratio = before if is_depthwise and size is not None else (before / behind.clamp(min=1e-300)).sqrt()
    if not bool(is_alive.any()):
        return torch.ones_like(before)
    logs = ratio.clamp(min=1e-300).log2()
    logs = logs - logs[is_alive].mean()
    return torch.where(is_alive, logs.clamp(-_MAX_OCTAVES, _MAX_OCTAVES).exp2(), torch.ones_like(before))


def _columns(weight: torch.Tensor, second: torch.nn.Module, pair: Pair) -> torch.Tensor:
    """Return a weight as [groups, outputs of one, inputs of one, the rest]; groups x inputs = channels of the pair."""
    groups = int(getattr(second, "groups", 1))
    inputs = pair.channels // groups
    return weight.reshape(groups, weight.shape[0] // groups, inputs, -1)


def _divide(first: torch.nn.Module, scale: torch.Tensor) -> None:
    import torch

    for name in ("weight", "bias"):
        held = getattr(first, name)
        if isinstance(held, torch.Tensor):
            factor = scale.reshape(-1, *[1] * (held.ndim - 1))
            held.copy_((held.double() / factor).to(held.dtype))


def _multiply(second: torch.nn.Module, scale: torch.Tensor, pair: Pair) -> None:
    import torch

    weight = second.weight
    assert isinstance(weight, torch.Tensor)
    columns = _columns(weight.double(), second, pair)
    factor = scale.reshape(columns.shape[0], 1, columns.shape[2], 1)
    weight.copy_((columns * factor).reshape(weight.shape).to(weight.dtype))


def _absorb(module: GraphModule, pairs: Sequence[Pair], calibration: Sequence[Batch]) -> None:
    """Move what a channel always exceeds before its relu into the bias of the next layer.

    Only where the next layer pads nothing: zeros at a border would not have the constant.
    """
    import torch

    for pair in pairs:
        first, second = module.get_submodule(pair.first), module.get_submodule(pair.second)
        if not _can_absorb(first, second, pair):
            continue
        constant = _least(module, pair, calibration).clamp(min=0)
        if not bool((constant > 0).any()):
            continue
        weight, (before, behind) = second.weight, (first.bias, second.bias)
        assert isinstance(weight, torch.Tensor)
        assert isinstance(before, torch.Tensor)
        assert isinstance(behind, torch.Tensor)
        columns = _columns(weight.double(), second, pair)
        groups, _, inputs, _ = columns.shape
        moved = (columns * constant.reshape(groups, 1, inputs, 1)).sum(dim=(2, 3)).flatten()
        before.copy_((before.double() - constant).to(before.dtype))
        behind.copy_((behind.double() + moved).to(behind.dtype))


def _can_absorb(first: torch.nn.Module, second: torch.nn.Module, pair: Pair) -> bool:
    padding = getattr(second, "padding", (0,))
    has_padding = padding != "valid" if isinstance(padding, str) else any(padding)
    kinds = [str(node.target) for node in pair.between]
    averages = [node for node in pair.between if str(node.target) in _AVERAGES]
    is_plain = sum(kind in _RELU for kind in kinds) == 1 and not any("leaky" in kind for kind in kinds)
    has_borders = any(len(node.args) > 3 and any(node.args[3]) for node in averages)  # type: ignore[arg-type]
    has_borders = has_borders or any(kind in _PADS for kind in kinds)
    is_module = any(node.op == "call_module" for node in pair.between)
    return (
        first.bias is not None
        and second.bias is not None
        and is_plain
        and not (has_padding or has_borders or is_module)
    )


def _least(module: GraphModule, pair: Pair, calibration: Sequence[Batch]) -> torch.Tensor:
    """Return the smallest value of each channel of the first layer, before its activation: float64 [channels]."""
    import torch
    from torch import nn

    found = torch.full((pair.channels,), torch.inf, dtype=torch.float64)
    first = module.get_submodule(pair.first)

    def hook(layer: nn.Module, inputs: object, output: torch.Tensor) -> None:
        flat = output.flatten(0, -2).T if isinstance(layer, nn.Linear) else output.transpose(0, 1).flatten(1)
        torch.minimum(found, flat.amin(dim=1).double(), out=found)

    _run(module, calibration, [first.register_forward_hook(hook)])
    return found
