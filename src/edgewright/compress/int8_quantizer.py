"""Which edges of a PyTorch graph become int8: annotations that LiteRT, ONNX Runtime and OpenVINO all lower.

Weights: int8, symmetric, one scale per output channel. Activations: int8, one scale and zero point per
tensor. Biases stay float here; each runtime makes them int32 with the scales of its inputs. A layer may be given
another `LayerScheme`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.fx import GraphModule, Node
    from torchao.quantization.pt2e.quantizer import QuantizationSpec, Quantizer

# Arguments: input, weight, bias; the weight's first axis is the output channels.
_WEIGHTED = frozenset(
    ("aten.conv1d.default", "aten.conv2d.default", "aten.conv3d.default", "aten.linear.default")
)
# Quantized inputs, and an output with a range of its own. A mean over an image is far smaller than its
# largest pixel: sharing the input's range, as pooling does, would throw away most of the 256 steps.
COMPUTED = frozenset(
    (
        "aten.add.Tensor",
        "aten.add_.Tensor",
        "aten.sub.Tensor",
        "aten.mul.Tensor",
        "aten.mul_.Tensor",
        "aten.matmul.default",
        "aten.bmm.default",
        "aten.mean.dim",
        "aten.adaptive_avg_pool2d.default",
    )
)
# The output holds values of the input, so it keeps its scale: runtimes then move bytes and compute nothing.
_MOVED = frozenset(
    (
        "aten.relu.default",
        "aten.relu_.default",
        "aten.max_pool1d.default",
        "aten.max_pool2d.default",
        "aten.avg_pool2d.default",
        "aten.flatten.using_ints",
        "aten.view.default",
        "aten.reshape.default",
        "aten.permute.default",
        "aten.transpose.int",
        "aten.squeeze.dim",
        "aten.squeeze.dims",
        "aten.unsqueeze.default",
        "aten.slice.Tensor",
        "aten.contiguous.default",
        "aten.clone.default",
        "aten.dropout.default",
        "aten.channel_shuffle.default",
    )
)
_JOINED = frozenset(("aten.cat.default", "aten.concat.default"))
_FOLDED = frozenset(f"edgewright.compress.folding.graph_modules.{name}" for name in ("Before", "Behind"))
# Run inside the kernel before it, so the value between the two is never rounded.
_FUSED_ACTIVATIONS = frozenset(
    (
        "aten.relu.default",
        "aten.relu_.default",
        "aten.relu6.default",
        "aten.relu6_.default",
        "aten.hardtanh.default",
        "aten.hardtanh_.default",
    )
)


class LayerScheme(StrEnum):
    """The precision of one layer."""

    W8A8 = "w8a8"
    W4A8 = "w4a8"  # weights rounded to -7..7, in int8 where a runtime has nothing smaller
    W8 = "w8"  # int8 weights; inputs and output are float
    FLOAT = "float"


@dataclass(frozen=True, kw_only=True)
class Schemes:
    """The quantization of the kinds of tensors; `weight4` is that of layers in w4a8."""

    activation: QuantizationSpec
    weight: QuantizationSpec
    weight4: QuantizationSpec


def schemes(*, is_trained: bool = False) -> Schemes:
    """Return the schemes; ranges of activations come from histograms, which drop rare outliers.

    Args:
        is_trained: quantize in every pass, with gradients (see `qat_modules`), instead of observing only.
    """
    import torch
    from torchao.quantization.pt2e import HistogramObserver, PerChannelMinMaxObserver
    from torchao.quantization.pt2e.quantizer import QuantizationSpec

    from edgewright.compress.qat_modules import ActivationFakeQuantize, PerChannelWeightFakeQuantize

    activation = QuantizationSpec(
        dtype=torch.int8,
        quant_min=-128,
        quant_max=127,
        qscheme=torch.per_tensor_affine,
        is_dynamic=False,
        observer_or_fake_quant_ctr=ActivationFakeQuantize if is_trained else HistogramObserver,
    )

    def weight(largest: int) -> QuantizationSpec:
        return QuantizationSpec(
            dtype=torch.int8,
            quant_min=-largest,
            quant_max=largest,
            qscheme=torch.per_channel_symmetric,
            ch_axis=0,
            is_dynamic=False,
            observer_or_fake_quant_ctr=(
                PerChannelWeightFakeQuantize if is_trained else PerChannelMinMaxObserver
            ),
        )

    return Schemes(activation=activation, weight=weight(127), weight4=weight(7))


def make_quantizer(chosen: Schemes, layers: Mapping[str, LayerScheme] | None = None) -> Quantizer:
    """Return a PT2E quantizer that annotates as this module says.

    Args:
        layers: name -> scheme of the layers, as `layer_names` tells them, that are not w8a8.
    """
    from torchao.quantization.pt2e.quantizer import Quantizer

    class Int8Quantizer(Quantizer):  # type: ignore[misc]
        def annotate(self, model: GraphModule) -> GraphModule:
            annotate(model, chosen, layers or {})
            return model

        def validate(self, model: GraphModule) -> None:
            """Accept every graph: a graph without an annotation is found by the caller, who counts them."""

    return Int8Quantizer()


def annotate(model: GraphModule, chosen: Schemes, layers: Mapping[str, LayerScheme]) -> None:
    """Annotate the nodes of `model` in order of execution; layers that are not in `layers` are w8a8."""
    from torchao.quantization.pt2e.quantizer import SharedQuantizationSpec

    for node in list(model.graph.nodes):
        kind = str(node.target)
        if _is_annotated(node) or not _is_float(node) or _is_folded(node):
            continue
        scheme = layers.get(_layer_name(node), LayerScheme.W8A8)
        if _is_weighted(node):
            _mark_weighted(node, chosen, scheme)
        elif _is_computed(node):
            if scheme is not LayerScheme.FLOAT:
                operands = [value for value in node.args if _is_tensor(value)]
                _mark(node, dict.fromkeys(operands, chosen.activation), chosen.activation)
        elif kind in _MOVED:
            source = node.args[0]
            if _gives_int8(source):
                shared = SharedQuantizationSpec((source, node))
                _set(node, {source: chosen.activation}, shared)
        elif kind in _JOINED:
            sources = list(node.args[0])
            if all(_gives_int8(source) for source in sources):
                shared = SharedQuantizationSpec((sources[0], node))
                inputs = dict.fromkeys(sources[1:], shared)
                _set(node, {**inputs, sources[0]: chosen.activation}, shared)


def count_weighted(model: GraphModule) -> int:
    """Return how many layers with weights of `model` are annotated."""
    return sum(1 for node in model.graph.nodes if _is_annotated(node) and str(node.target) in _WEIGHTED)


def layer_names(model: GraphModule) -> dict[str, bool]:
    """Return the name of each layer that can be quantized, in order of execution, and whether it has weights.

    A layer with weights is called as its weight is, without `.weight`; a sum, product or mean as its node.
    """
    return {
        _layer_name(n): _is_weighted(n)
        for n in model.graph.nodes
        if _is_weighted(n) or (_is_computed(n) and not _is_folded(n))
    }


def _layer_name(node: Node) -> str:
    return str(node.args[1].target).removesuffix(".weight") if _is_weighted(node) else str(node.name)  # type: ignore[union-attr]


def _is_weighted(node: Node) -> bool:
    return str(node.target) in _WEIGHTED and _is_float(node) and node.args[1].op == "get_attr"  # type: ignore[union-attr]


def _is_computed(node: Node) -> bool:
    kind = str(node.target)
    if kind not in COMPUTED or not _is_float(node):
        return False
    operands = [value for value in node.args if _is_tensor(value)]
    return len(operands) == _arity(kind) and all(_is_float(value) for value in operands)  # type: ignore[arg-type]


def _is_folded(node: Node) -> bool:
    """Return whether the node is of a processing that was folded into the model: its sums of pixels stay exact."""
    modules = list((node.meta.get("nn_module_stack") or {}).values())
    kind = modules[-1][1] if modules else ""
    return (kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}") in _FOLDED


def _mark_weighted(node: Node, chosen: Schemes, scheme: LayerScheme) -> None:
    source, weight = node.args[0], node.args[1]
    if scheme is LayerScheme.W8:
        _set(node, {weight: chosen.weight}, None)  # type: ignore[dict-item]
    elif scheme is not LayerScheme.FLOAT:
        chosen_weight = chosen.weight4 if scheme is LayerScheme.W4A8 else chosen.weight
        _mark(node, {source: chosen.activation, weight: chosen_weight}, chosen.activation)  # type: ignore[dict-item]


def _arity(kind: str) -> int:
    return 1 if kind in ("aten.mean.dim", "aten.adaptive_avg_pool2d.default") else 2


def _mark(node: Node, inputs: dict[Node, object], output: object) -> None:
    """Annotate `node`; an activation that is its only user is fused with it, and gives the output."""
    users = list(node.users)
    if len(users) == 1 and str(users[0].target) in _FUSED_ACTIVATIONS:
        _set(node, inputs, None)
        _set(users[0], {}, output)
    else:
        _set(node, inputs, output)


def _set(node: Node, inputs: dict[Node, object], output: object) -> None:
    from torchao.quantization.pt2e.quantizer import QuantizationAnnotation

    node.meta["quantization_annotation"] = QuantizationAnnotation(
        input_qspec_map=inputs, output_qspec=output, _annotated=True
    )


def _is_annotated(node: Node) -> bool:
    return "quantization_annotation" in node.meta


def _gives_int8(node: Node) -> bool:
    return _is_annotated(node) and node.meta["quantization_annotation"].output_qspec is not None


def _is_tensor(value: object) -> bool:
    from torch.fx import Node

    return isinstance(value, Node)


def _is_float(node: Node) -> bool:
    import torch

    value = node.meta.get("val")
    if value is None and node.op == "get_attr":
        return True
    return isinstance(value, torch.Tensor) and value.dtype == torch.float32
