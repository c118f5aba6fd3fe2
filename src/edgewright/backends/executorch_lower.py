"""A program of torch.export as ExecuTorch takes it: static, folded, quantized, lowered to a delegate, and counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgewright.backends import vendor
from edgewright.core.errors import ConversionError, first_line
from edgewright.core.program import Program
from edgewright.core.tensors import Array

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram
    from torch.fx import GraphModule, Node

_WEIGHTED = ("conv1d", "conv2d", "conv3d", "convolution", "linear", "addmm", "mm")
# Not operators of a kernel: memory, tuples, and shapes.
_STRUCTURE = ("getitem", "alloc", "view", "sym_size", "executorch_call_delegate")
_CONVOLUTION = "aten.conv2d.default"
_LINEAR = "aten.linear.default"


@dataclass(frozen=True, kw_only=True)
class Delegation:
    """Who runs the operators of a lowered program.

    Attributes:
        partitions: pieces that the delegate runs, each called as one.
        delegated: operator -> how often, inside the pieces.
        portable: operator -> how often, outside; portable kernels are written for size, not for speed.
        weighted: convolutions and linear layers inside the pieces.
        int8: those of them whose weights are int8.
    """

    partitions: int
    delegated: Counter[str]
    portable: Counter[str]
    weighted: int
    int8: int

    def notes(self, delegate: str) -> tuple[str, ...]:
        """Return what the user should know of it."""
        inside, outside = self.delegated.total(), self.portable.total()
        pieces = "1 partition" if self.partitions == 1 else f"{self.partitions} partitions"
        found = [f"{delegate} runs {inside} of {inside + outside} operators, in {pieces}"]
        if outside:
            named = ", ".join(
                f"{name} ({count})" if count > 1 else name for name, count in self.portable.most_common()
            )
            found.append(f"portable kernels, which can be 100 times slower and more, run {named}")
        if self.int8:
            found.append(f"{self.int8} of {self.weighted} layers with weights run {delegate}'s int8 kernels")
        return tuple(found)


def static_program(program: Program, *, is_half: bool = False) -> ExportedProgram:
    """Return the program with static shapes (a dynamic batch is 1) and quantized weights stored as integers.

    Args:
        is_half: weights and activations in float16; inputs and outputs keep their types.
    Raises:
        ConversionError: a dimension besides the batch is dynamic, or the program does not run in float16.
    """
    module = vendor.load_exported(program).module(check_guards=False)
    _fold_quantized_weights(module)
    example = example_inputs(program)
    return export(_in_half(module) if is_half else module, example, program)


def example_inputs(program: Program) -> tuple[torch.Tensor, ...]:
    """Return zeros for each input, with a batch of 1 where it is dynamic."""
    import torch

    return tuple(
        torch.zeros(vendor.static_shape(spec), dtype=getattr(torch, spec.dtype)) for spec in program.inputs
    )


def export(module: torch.nn.Module, example: tuple[torch.Tensor, ...], program: Program) -> ExportedProgram:
    """Return `module` exported with the static shapes of `example`.

    Raises:
        ConversionError: torch.export refuses it.
    """
    import torch

    try:
        with vendor.quiet(), torch.no_grad():
            return torch.export.export(module, example)
    except Exception as err:
        raise ConversionError(
            f"{program.path.name} cannot be exported with static shapes for ExecuTorch: "
            f"{type(err).__name__}: {first_line(err)}."
        ) from err


def _in_half(module: torch.nn.Module) -> torch.nn.Module:
    import torch
    from torch.utils import _pytree

    class Half(torch.nn.Module):
        def __init__(self, inner: torch.nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, *inputs: torch.Tensor) -> object:
            outputs = self.inner(*(_cast(value, torch.float32, torch.float16) for value in inputs))
            return _pytree.tree_map(lambda value: _cast(value, torch.float16, torch.float32), outputs)

    return Half(module.half())


def _cast(value: torch.Tensor, have: torch.dtype, want: torch.dtype) -> torch.Tensor:
    return value.to(want) if value.dtype == have else value


def _fold_quantized_weights(module: torch.nn.Module) -> None:
    """Replace each quantize operator on a constant by its integers.

    PT2E programs are kept unfolded for other runtimes, but ExecuTorch has no kernel for such a quantize operator, and
    XNNPACK takes integer weights only.
    """
    import torch

    graph_module = _graph_of(module)
    graph = graph_module.graph
    for number, node in enumerate(list(graph.nodes)):
        name = str(node.target)
        if node.op != "call_function" or not name.startswith("quantized_decomposed.quantize_per_"):
            continue
        if any(source.op != "get_attr" for source in node.all_input_nodes):
            continue
        arguments = [
            _attribute(graph_module, str(value.target)) if isinstance(value, torch.fx.Node) else value
            for value in node.args
        ]
        folded = node.target(*arguments)
        held = f"_folded_weight_{number}"
        graph_module.register_buffer(held, folded)
        with graph.inserting_before(node):
            constant = graph.get_attr(held)
        constant.meta.update(node.meta)
        node.replace_all_uses_with(constant)
        graph.erase_node(node)
    graph.eliminate_dead_code()
    graph_module.delete_all_unused_submodules()
    graph_module.recompile()


def _graph_of(module: torch.nn.Module) -> GraphModule:
    import torch

    assert isinstance(module, torch.fx.GraphModule)
    return module


def _attribute(module: torch.nn.Module, name: str) -> object:
    value: object = module
    for part in name.split("."):
        value = getattr(value, part)
    return value


def quantize_weights(program: Program) -> tuple[ExportedProgram, tuple[str, ...]]:
    """Return the program with int8 weights per output channel, and notes on what stays float.

    XNNPACK has no kernel of int8 weights and float activations: it rounds activations to int8 as well, with a range
    taken anew from each inference, for linear layers and for convolutions of two dimensions that are not depthwise.

    Raises:
        ConversionError: no layer can be quantized so.
    """
    import torch
    from torchao.quantization.pt2e import PerChannelMinMaxObserver, PlaceholderObserver
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
    from torchao.quantization.pt2e.quantizer import QuantizationAnnotation, QuantizationSpec, Quantizer

    activation = QuantizationSpec(
        dtype=torch.int8,
        quant_min=-128,
        quant_max=127,
        qscheme=torch.per_tensor_affine,
        is_dynamic=True,
        observer_or_fake_quant_ctr=PlaceholderObserver.with_args(eps=2**-12),
    )
    weight = QuantizationSpec(
        dtype=torch.int8,
        quant_min=-127,
        quant_max=127,
        qscheme=torch.per_channel_symmetric,
        ch_axis=0,
        is_dynamic=False,
        observer_or_fake_quant_ctr=PerChannelMinMaxObserver.with_args(eps=2**-12),
    )
    left_out: Counter[str] = Counter()
    quantized: Counter[str] = Counter()

    class WeightQuantizer(Quantizer):  # type: ignore[misc]
        def annotate(self, model: GraphModule) -> GraphModule:
            for node in model.graph.nodes:
                kind = _operator(node)
                if node.op != "call_function" or kind not in _WEIGHTED:
                    continue
                if _is_dynamic_kernel(model, node):
                    quantized[kind] += 1
                    node.meta["quantization_annotation"] = QuantizationAnnotation(
                        input_qspec_map={node.args[0]: activation, node.args[1]: weight}, _annotated=True
                    )
                else:
                    left_out[kind] += 1
            return model

        def validate(self, model: GraphModule) -> None:
            """Accept every graph: the caller counts what was annotated."""

    example = example_inputs(program)
    module = static_program(program).module(check_guards=False)
    try:
        with vendor.quiet(), torch.no_grad():
            prepared = prepare_pt2e(module, WeightQuantizer())
            if quantized:
                prepared(*example)
                converted = convert_pt2e(prepared)
    except Exception as err:
        raise ConversionError(
            f"PT2E failed on {program.path.name}: {type(err).__name__}: {first_line(err)}. Use w8a8 or fp16."
        ) from err
    if not quantized:
        raise ConversionError(
            f"{program.path.name} has no linear layer and no convolution of two dimensions on float32 that is not "
            "depthwise, and XNNPACK has int8 weights for these alone. Use w8a8 or fp16."
        )
    notes = ["XNNPACK rounds activations to int8 too, with a range taken from each inference"]
    if left_out:
        named = ", ".join(f"{name} ({count})" for name, count in left_out.most_common())
        notes.append(f"float weights stay in {named}: XNNPACK has int8 weights for them in w8a8 only")
    return export(converted, example, program), tuple(notes)


def _is_dynamic_kernel(model: GraphModule, node: Node) -> bool:
    """Return whether XNNPACK has a kernel of this layer for int8 weights and ranges taken at run time."""
    import torch

    source, constant = node.args[0], node.args[1]
    assert isinstance(source, torch.fx.Node)
    assert isinstance(constant, torch.fx.Node)
    value = source.meta.get("val")
    weight = _attribute(model, str(constant.target)) if constant.op == "get_attr" else None
    if not isinstance(weight, torch.Tensor) or not isinstance(value, torch.Tensor):
        return False
    if value.dtype != torch.float32 or weight.dtype != torch.float32:
        return False
    if str(node.target) == _LINEAR:
        return True
    groups = node.args[6] if len(node.args) > 6 else node.kwargs.get("groups", 1)
    # The partitioner takes a convolution of one input channel for a depthwise one.
    return str(node.target) == _CONVOLUTION and bool(groups == 1) and weight.shape[1] > 1


def quantize_native(program: Program, samples: Sequence[Sequence[Array]]) -> ExportedProgram:
    """Return the program in int8 as ExecuTorch's own quantizer for XNNPACK makes it.

    Args:
        samples: inputs of one inference each, for the ranges of activations.
    Raises:
        ConversionError: PT2E fails on it.
    """
    import numpy as np
    import torch
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    module = static_program(program).module(check_guards=False)
    quantizer = XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True))
    try:
        with vendor.quiet(), torch.no_grad():
            prepared = prepare_pt2e(module, quantizer)
            for sample in samples:
                prepared(*(torch.from_numpy(np.array(array)) for array in sample))
            converted = convert_pt2e(prepared)
    except Exception as err:
        raise ConversionError(
            f"ExecuTorch's quantizer failed on {program.path.name}: {type(err).__name__}: {first_line(err)}. "
            "Use the quantizer pt2e."
        ) from err
    return export(converted, example_inputs(program), program)


def spell_out_strides(exported: ExportedProgram) -> None:
    """Give every pooling the stride that it has by default: its kernel. coremltools does not know the short form."""
    for node in exported.graph.nodes:
        if node.op == "call_function" and _operator(node) in (
            "max_pool1d",
            "max_pool2d",
            "avg_pool1d",
            "avg_pool2d",
        ):
            source, kernel, *rest = node.args
            if not rest or rest[0] == []:
                node.args = (source, kernel, kernel, *rest[1:])
    exported.graph_module.recompile()


def lower(exported: ExportedProgram, partitioner: object, program: Program) -> tuple[bytes, Delegation]:
    """Return the bytes of the `.pte` and who runs what.

    Raises:
        ConversionError: ExecuTorch refuses the program, or has no kernel for some operators, all of them by name.
    """
    from executorch.exir import to_edge_transform_and_lower

    kernels_here = _kernels_of_the_runtime()
    try:
        with vendor.quiet():
            edge = to_edge_transform_and_lower(exported, partitioner=[partitioner])
            delegation = _delegation(edge.exported_program().graph_module)
            made = edge.to_executorch()
            content = bytes(made.buffer)
    except Exception as err:
        raise ConversionError(
            f"ExecuTorch cannot lower {program.path.name}: {type(err).__name__}: {first_line(err)}. "
            "Replace the operator in the model, or leave this runtime out."
        ) from err
    kernels = _kernel_names(made.exported_program().graph_module)
    missing = sorted(kernels - kernels_here)
    if missing:
        raise ConversionError(
            f"{program.path.name} cannot run in ExecuTorch: it has no kernel for {', '.join(missing)}. "
            "Replace them in the model, or leave this runtime out."
        )
    return content, delegation


def _delegation(module: GraphModule) -> Delegation:
    delegated: Counter[str] = Counter()
    portable: Counter[str] = Counter()
    partitions = weighted = int8 = 0
    for graph_module in _graph_modules(module):
        for node in graph_module.graph.nodes:
            if node.op != "call_function":
                continue
            if _operator(node) not in _STRUCTURE:
                portable[_operator(node)] += 1
            elif _operator(node) == "executorch_call_delegate":
                partitions += 1
                lowered = getattr(graph_module, node.args[0].target)
                for inner in lowered.original_module.graph.nodes:
                    if inner.op != "call_function" or _operator(inner) in _STRUCTURE:
                        continue
                    delegated[_operator(inner)] += 1
                    if _operator(inner) in _WEIGHTED:
                        weighted += 1
                        int8 += any("dequantize" in str(source.target) for source in _weights(inner))
    return Delegation(
        partitions=partitions, delegated=delegated, portable=portable, weighted=weighted, int8=int8
    )


def _weights(node: Node) -> Sequence[Node]:
    """Return where the weights of a layer come from: its second input, or the third of addmm."""
    position = 2 if _operator(node) == "addmm" else 1
    found = [node.all_input_nodes[position]] if len(node.all_input_nodes) > position else []
    if found and "permute" in str(found[0].target):
        return found[0].all_input_nodes
    return found


def _graph_modules(module: GraphModule) -> Sequence[GraphModule]:
    """Return the graph and those of its branches and loops, not those of delegates."""
    import torch

    found = [module]
    for name, child in module.named_children():
        if isinstance(child, torch.fx.GraphModule) and not name.startswith("lowered_module"):
            found += _graph_modules(child)
    return found


def _operator(node: Node) -> str:
    """Return the operator without namespace and overload: conv2d of aten.conv2d.default."""
    schema = getattr(node.target, "_schema", None)
    if schema is not None:
        return str(schema.name).rpartition("::")[2]
    return str(getattr(node.target, "__name__", node.target)).rpartition(".")[2]


def _kernel_names(module: GraphModule) -> set[str]:
    """Return the kernels that the program calls, as the runtime names them: aten::add.out."""
    found = set()
    for graph_module in _graph_modules(module):
        for node in graph_module.graph.nodes:
            schema = getattr(node.target, "_schema", None)
            if node.op == "call_function" and schema is not None and _operator(node) not in _STRUCTURE:
                found.add(f"{schema.name}.{schema.overload_name}".rstrip("."))
    return found


def _kernels_of_the_runtime() -> set[str]:
    from executorch.runtime import Runtime

    # Loading it registers the quantize and dequantize kernels, here and with the compiler.
    import executorch.kernels.quantized  # noqa: F401  isort: skip

    return set(Runtime.get().operator_registry.operator_names)
