"""Which edges of a PyTorch graph become int8: annotations that LiteRT, ONNX Runtime and OpenVINO all lower.

Weights: int8, symmetric, one scale per output channel. Activations: int8, one scale and zero point per
tensor. Biases stay float here; each runtime makes them int32 with the scales of its inputs.
"""

from __future__ import annotations

from dataclasses import dataclass
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
_COMPUTED = frozenset(
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


@dataclass(frozen=True, kw_only=True)
class Schemes:
    """The quantization of the two kinds of tensors."""

    activation: QuantizationSpec
    weight: QuantizationSpec


def schemes() -> Schemes:
    """Return the schemes; ranges of activations come from histograms, which drop rare outliers."""
    import torch
    from torchao.quantization.pt2e import HistogramObserver, PerChannelMinMaxObserver
    from torchao.quantization.pt2e.quantizer import QuantizationSpec

    activation = QuantizationSpec(
        dtype=torch.int8,
        quant_min=-128,
        quant_max=127,
        qscheme=torch.per_tensor_affine,
        is_dynamic=False,
        observer_or_fake_quant_ctr=HistogramObserver,
    )
    weight = QuantizationSpec(
        dtype=torch.int8,
        quant_min=-127,
        quant_max=127,
        qscheme=torch.per_channel_symmetric,
        ch_axis=0,
        is_dynamic=False,
        observer_or_fake_quant_ctr=PerChannelMinMaxObserver,
    )
    return Schemes(activation=activation, weight=weight)


def make_quantizer(chosen: Schemes) -> Quantizer:
    """Return a PT2E quantizer that annotates as this module says."""
    from torchao.quantization.pt2e.quantizer import Quantizer

    class Int8Quantizer(Quantizer):  # type: ignore[misc]
        def annotate(self, model: GraphModule) -> GraphModule:
            annotate(model, chosen)
            return model

        def validate(self, model: GraphModule) -> None:
            """Accept every graph: a graph without an annotation is found by the caller, who counts them."""

    return Int8Quantizer()


def annotate(model: GraphModule, chosen: Schemes) -> None:
    """Annotate the nodes of `model` in order of execution."""
    from torchao.quantization.pt2e.quantizer import SharedQuantizationSpec

    for node in list(model.graph.nodes):
        kind = str(node.target)
        if _is_annotated(node) or not _is_float(node):
            continue
        if kind in _WEIGHTED and node.args[1].op == "get_attr":
            _mark(node, {node.args[0]: chosen.activation, node.args[1]: chosen.weight}, chosen.activation)
        elif kind in _COMPUTED:
            operands = [value for value in node.args if _is_tensor(value)]
            if len(operands) == _arity(kind) and all(_is_float(value) for value in operands):
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
