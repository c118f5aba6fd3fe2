"""The layers that operators on parameters came from, and the layers of quantized programs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch.fx import GraphModule, Node

    from edgewright.compress.quantized_modules import FakeQuantize

_QUANTIZE = "quantized_decomposed.quantize_per_tensor.default"
_DEQUANTIZE = "quantized_decomposed.dequantize_per_tensor.default"
_DEQUANTIZE_CHANNELS = "quantized_decomposed.dequantize_per_channel.default"
_QUANTIZE_CHANNELS = "quantized_decomposed.quantize_per_channel.default"


@dataclass(frozen=True, kw_only=True)
class FoundLayer:
    """A layer in place of an operator.

    Attributes:
        inputs: what the layer is called with.
        weight_name: the path of the parameter that names it; empty where it has none.
        key: equal for two operators that are the same layer.
        replaces: the operators whose results the layer gives; none means the operator itself.
    """

    layer: torch.nn.Module
    inputs: tuple[Node, ...]
    weight_name: str
    key: object
    replaces: tuple[Node, ...] = ()


def layer_of(node: Node, flat: GraphModule) -> FoundLayer | None:
    """Return the layer that the operator `node` of `flat` came from, or None when it has none."""
    make = _makers().get(str(node.target))
    return None if make is None else make(_Call(node, flat))


class _Call:
    """An operator with its arguments under the names of its schema, and the values of its parameters."""

    def __init__(self, node: Node, flat: GraphModule) -> None:
        self.node = node
        self._flat = flat
        schema = node.target._schema.arguments  # type: ignore[union-attr]
        self._arguments = {
            argument.name: node.args[index]
            if index < len(node.args)
            else node.kwargs.get(argument.name, argument.default_value)
            for index, argument in enumerate(schema)
        }

    def value(self, name: str) -> object:
        """Return an argument that is no tensor."""
        return self._arguments[name]

    def input(self, name: str = "input") -> Node:
        """Return an argument that is computed."""
        import torch

        node = self._arguments[name]
        assert isinstance(node, torch.fx.Node)
        return node

    def name_of(self, name: str) -> str:
        """Return the path of a parameter, or an empty text where the argument is none or computed."""
        node = self._arguments[name]
        return str(getattr(node, "target", "")) if getattr(node, "op", "") == "get_attr" else ""

    def tensor(self, name: str) -> torch.Tensor | None:
        """Return a parameter's or constant's value, or None where the argument is none or computed."""
        path = self.name_of(name)
        if not path:
            return None
        found: object = self._flat
        for part in path.split("."):
            found = getattr(found, part)
        return _tensor(found)

    def of(self, node: Node) -> _Call:
        """Return another operator of the same graph."""
        return _Call(node, self._flat)

    def is_absent(self, name: str) -> bool:
        return self._arguments[name] is None

    def has(self, *names: str) -> bool:
        """Return whether each argument is a held tensor or absent, so that a layer can own it."""
        return all(self.is_absent(name) or self.tensor(name) is not None for name in names)


def _tensor(value: object) -> torch.Tensor | None:
    import torch

    return value.detach().clone() if isinstance(value, torch.Tensor) else None


def _fill(layer: torch.nn.Module, tensors: Mapping[str, torch.Tensor | None]) -> torch.nn.Module:
    """Set parameters and buffers of `layer`; those that are None stay as they are."""
    import torch

    for name, value in tensors.items():
        if value is not None:
            held = getattr(layer, name)
            setattr(layer, name, torch.nn.Parameter(value) if isinstance(held, torch.nn.Parameter) else value)
    return layer.eval()


def _key(call: _Call) -> object:
    """Return what tells two calls apart, besides the value that they are called with."""
    return (str(call.node.args[1:]), str(sorted(call.node.kwargs.items(), key=lambda entry: entry[0])))


@dataclass(frozen=True, kw_only=True)
class _Weight:
    """A weight: its float values, its path, and how it is quantized, if it is."""

    values: torch.Tensor
    name: str
    quantizer: torch.nn.Module | None = None


def _weight(call: _Call, name: str = "weight") -> _Weight | None:
    """Return the weight of an operator, whether it is quantized or not; None when it is computed."""
    import torch

    values = call.tensor(name)
    if values is not None:
        return _Weight(values=values, name=call.name_of(name))
    node = call.value(name)
    if not isinstance(node, torch.fx.Node) or str(node.target) not in (_DEQUANTIZE_CHANNELS, _DEQUANTIZE):
        return None
    outer = call.of(node)
    quantizer = _fake_quantizer(outer)
    inner = outer.value("input")
    assert isinstance(inner, torch.fx.Node)
    if inner.op == "get_attr":  # stored as integers
        stored = outer.tensor("input")
        if stored is None or quantizer is None:
            return None
        return _Weight(values=quantizer.to_float(stored), name=outer.name_of("input"), quantizer=quantizer)
    if str(inner.target) not in (_QUANTIZE_CHANNELS, _QUANTIZE) or quantizer is None:
        return None
    held = call.of(inner)
    values = held.tensor("input")
    return None if values is None else _Weight(values=values, name=held.name_of("input"), quantizer=quantizer)


def _fake_quantizer(call: _Call) -> FakeQuantize | None:
    """Return the layer of a quantize or dequantize operator, or None when its scale is computed."""
    import torch

    from edgewright.compress.quantized_modules import FakeQuantize

    low, high, kind = call.value("quant_min"), call.value("quant_max"), call.value("dtype")
    assert isinstance(low, int)
    assert isinstance(high, int)
    if "per_channel" in str(call.node.target):
        scale, zero = call.tensor("scales"), call.tensor("zero_points")
        axis = call.value("axis")
        assert isinstance(axis, int)
        if scale is None or zero is None:
            return None
    else:
        step, offset, axis = call.value("scale"), call.value("zero_point"), None
        if not isinstance(step, float | int) or not isinstance(offset, int):
            return None
        scale, zero = torch.tensor(float(step), dtype=torch.float64), torch.tensor(offset)
    assert isinstance(kind, torch.dtype)
    return FakeQuantize(scale=scale, zero_point=zero, axis=axis, low=low, high=high, dtype=kind)


def _convolution(rank: int, *, is_transposed: bool) -> Callable[[_Call], FoundLayer | None]:
    def make(call: _Call) -> FoundLayer | None:
        from torch import nn

        from edgewright.compress.quantized_modules import quantized_class

        weight = _weight(call)
        if weight is None or not call.has("bias"):
            return None
        groups = call.value("groups")
        assert isinstance(groups, int)
        shape = weight.values.shape
        settings = {name: _sizes(call.value(name), rank) for name in ("stride", "padding", "dilation")}
        bias = call.tensor("bias")
        if is_transposed:
            if weight.quantizer is not None:
                return None
            make_layer: Callable[..., nn.Module] = (
                nn.ConvTranspose1d,
                nn.ConvTranspose2d,
                nn.ConvTranspose3d,
            )[rank - 1]
            layer = make_layer(
                shape[0],
                shape[1] * groups,
                shape[2:],
                groups=groups,
                bias=bias is not None,
                output_padding=_sizes(call.value("output_padding"), rank),
                **settings,
            )
        else:
            kind: type[nn.Module] = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[rank - 1]
            make_layer = kind if weight.quantizer is None else quantized_class(kind)  # type: ignore[arg-type]
            layer = make_layer(
                shape[1] * groups, shape[0], shape[2:], groups=groups, bias=bias is not None, **settings
            )
        return _owned(call, layer, weight, bias)

    return make


def _sizes(value: object, rank: int) -> str | tuple[int, ...]:
    if isinstance(value, str):
        return value
    assert isinstance(value, list | tuple)
    sizes = tuple(int(size) for size in value)
    return sizes * rank if len(sizes) == 1 else sizes


def _owned(call: _Call, layer: torch.nn.Module, weight: _Weight, bias: torch.Tensor | None) -> FoundLayer:
    _fill(layer, {"weight": weight.values, "bias": bias})
    if weight.quantizer is not None:
        layer.weight_quantizer = weight.quantizer
    return FoundLayer(layer=layer, inputs=(call.input(),), weight_name=weight.name, key=_key(call))


def _linear(call: _Call) -> FoundLayer | None:
    from torch import nn

    from edgewright.compress.quantized_modules import quantized_class

    weight = _weight(call)
    if weight is None or weight.values.ndim != 2 or not call.has("bias"):
        return None
    bias = call.tensor("bias")
    make_layer: Callable[..., nn.Module] = nn.Linear
    if weight.quantizer is not None:
        make_layer = quantized_class(nn.Linear)
    layer = make_layer(*weight.values.shape[::-1], bias=bias is not None)
    return _owned(call, layer, weight, bias)


def _product(call: _Call) -> FoundLayer | None:
    """Return x @ W of a held matrix as a linear layer, whose weight is the transpose."""
    import torch
    from torch import nn

    name = "other" if "matmul" in str(call.node.target) else "mat2"
    matrix, source = call.tensor(name), call.value("self")
    if matrix is None or matrix.ndim != 2 or not isinstance(source, torch.fx.Node):
        return None
    layer = nn.Linear(matrix.shape[0], matrix.shape[1], bias=False)
    _fill(layer, {"weight": matrix.T.contiguous()})
    return FoundLayer(layer=layer, inputs=(source,), weight_name=call.name_of(name), key=_key(call))


def _affine_product(call: _Call) -> FoundLayer | None:
    """Return b + x @ W (addmm) of a held matrix and vector as a linear layer."""
    from torch import nn

    matrix, bias = call.tensor("mat2"), call.tensor("self")
    if (
        matrix is None
        or bias is None
        or bias.ndim != 1
        or (call.value("beta"), call.value("alpha")) != (1, 1)
    ):
        return None
    layer = nn.Linear(*matrix.shape)
    _fill(layer, {"weight": matrix.T.contiguous(), "bias": bias})
    return FoundLayer(
        layer=layer, inputs=(call.input("mat1"),), weight_name=call.name_of("mat2"), key=_key(call)
    )


def _batch_norm(call: _Call) -> FoundLayer | None:
    import torch
    from torch import nn

    value = call.input().meta.get("val")
    mean, variance = call.tensor("running_mean"), call.tensor("running_var")
    if mean is None or variance is None or not call.has("weight", "bias"):
        return None
    rank = value.ndim if isinstance(value, torch.Tensor) else 4
    kind = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}.get(rank)
    weight, bias = call.tensor("weight"), call.tensor("bias")
    if kind is None or (weight is None) != (bias is None):
        return None
    layer = kind(
        len(mean),
        eps=_number(call.value("eps")),
        momentum=_number(call.value("momentum")),
        affine=weight is not None,
    )
    _fill(layer, {"weight": weight, "bias": bias, "running_mean": mean, "running_var": variance})
    name = call.name_of("weight") or call.name_of("running_mean").replace("running_mean", "weight")
    return FoundLayer(layer=layer, inputs=(call.input(),), weight_name=name, key=_key(call))


def _layer_norm(call: _Call) -> FoundLayer | None:
    from torch import nn

    shape = call.value("normalized_shape")
    assert isinstance(shape, list | tuple)
    weight, bias = call.tensor("weight"), call.tensor("bias")
    if not call.has("weight", "bias") or weight is None:
        return None
    layer = nn.LayerNorm([int(size) for size in shape], eps=_number(call.value("eps")), bias=bias is not None)
    _fill(layer, {"weight": weight, "bias": bias})
    return FoundLayer(layer=layer, inputs=(call.input(),), weight_name=call.name_of("weight"), key=_key(call))


def _group_norm(call: _Call) -> FoundLayer | None:
    from torch import nn

    weight, bias, groups = call.tensor("weight"), call.tensor("bias"), call.value("num_groups")
    assert isinstance(groups, int)
    if weight is None or bias is None:
        return None
    layer = nn.GroupNorm(groups, len(weight), eps=_number(call.value("eps")))
    _fill(layer, {"weight": weight, "bias": bias})
    return FoundLayer(layer=layer, inputs=(call.input(),), weight_name=call.name_of("weight"), key=_key(call))


def _prelu(call: _Call) -> FoundLayer | None:
    from torch import nn

    weight = call.tensor("weight")
    if weight is None or weight.ndim != 1:
        return None
    layer = _fill(nn.PReLU(len(weight)), {"weight": weight})
    return FoundLayer(
        layer=layer, inputs=(call.input("self"),), weight_name=call.name_of("weight"), key=_key(call)
    )


def _embedding(call: _Call) -> FoundLayer | None:
    from torch import nn

    weight = call.tensor("weight")
    if weight is None:
        return None
    layer = _fill(nn.Embedding(*weight.shape), {"weight": weight})
    key = call.name_of("weight")
    return FoundLayer(layer=layer, inputs=(call.input("indices"),), weight_name=key, key=key)


def _dropout(call: _Call) -> FoundLayer | None:
    from torch import nn

    layer = nn.Dropout(_number(call.value("p"))).eval()
    return FoundLayer(layer=layer, inputs=(call.input(),), weight_name="", key=call.node.name)


def _activation_quantizer(call: _Call) -> FoundLayer | None:
    """Return the layer of a quantize operator whose value is only ever dequantized again."""
    import torch

    layer = _fake_quantizer(call)
    users = tuple(call.node.users)
    source = call.value("input")
    if layer is None or not isinstance(source, torch.fx.Node) or source.op == "get_attr" or not users:
        return None
    if any(str(user.target) not in (_DEQUANTIZE, _DEQUANTIZE_CHANNELS) for user in users):
        return None
    return FoundLayer(
        layer=layer.eval(), inputs=(source,), weight_name="", key=call.node.name, replaces=users
    )


def _number(value: object) -> float:
    assert isinstance(value, float | int)
    return float(value)


@cache
def _makers() -> Mapping[str, Callable[[_Call], FoundLayer | None]]:
    """Return operator -> what makes its layer."""
    makers: dict[str, Callable[[_Call], FoundLayer | None]] = {
        "aten.linear.default": _linear,
        "aten.matmul.default": _product,
        "aten.mm.default": _product,
        "aten.addmm.default": _affine_product,
        "aten.batch_norm.default": _batch_norm,
        "aten.layer_norm.default": _layer_norm,
        "aten.group_norm.default": _group_norm,
        "aten.prelu.default": _prelu,
        "aten.embedding.default": _embedding,
        "aten.dropout.default": _dropout,
        "aten.dropout_.default": _dropout,
        _QUANTIZE: _activation_quantizer,
    }
    for rank in (1, 2, 3):
        convolution = _convolution(rank, is_transposed=False)
        makers[f"aten.conv{rank}d.default"] = makers[f"aten.conv{rank}d.padding"] = convolution
        overload = "default" if rank == 1 else "input"
        makers[f"aten.conv_transpose{rank}d.{overload}"] = _convolution(rank, is_transposed=True)
    return makers
