"""A program as a module that can be trained, pruned and quantized again, and back.

`torch.export` gives a flat graph of operators on parameters, frozen in evaluation mode. Here each operator with
parameters becomes the layer that it came from, under its old name: what finds layers by type, trains batch
normalisation or shrinks channels then works on a model of any source format as on the user's own module.
"""

from __future__ import annotations

import copy
import fnmatch
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgewright.backends.vendor import load_exported, quiet
from edgewright.compress.module_layers import layer_of
from edgewright.core.errors import FormatMismatchError, UnknownNameError
from edgewright.core.program import Program
from edgewright.core.tensors import TensorSpec
from edgewright.sources.torch_export import export_module

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram
    from torch.fx import Graph, GraphModule, Node

FILE_NAME = "model.pt2"
_FEW = 0.01  # of the parameters: not worth a note
_SHOWN = 4
_SUFFIXES = (".parametrizations.weight.original", ".weight", "_weight")


def to_module(program: Program) -> GraphModule:
    """Return the model of a `.pt2` program as a module in evaluation mode.

    Its layers are those of `torch.nn`, named as in the source; batch normalisation and dropout follow train() and
    eval(). Parameters of other operators stay parameters of the module. A quantized program has `FakeQuantize`
    layers and quantized convolutions in place of its quantize and dequantize operators (see `module_layers`). It
    takes tensors by position and returns one tensor, or a tuple of them.

    Raises:
        FormatMismatchError: `program` is in another format, or not a program of torch.export.
    """
    if program.format != "pt2":
        raise FormatMismatchError(
            f"{program.path.name} is {program.format}, but compression works on .pt2 programs. Convert it first."
        )
    return layered(load_exported(program))


def trace(module: torch.nn.Module, example_inputs: Sequence[torch.Tensor]) -> GraphModule:
    """Return `module` as `to_module` gives it; `module` itself is not changed, its weights are copied.

    Args:
        example_inputs: the tensors of one call, batch axis first.
    Raises:
        UsageError, ConversionError: as of `sources.torch_export.export_module`.
    """
    import tempfile

    with tempfile.TemporaryDirectory(prefix="edgewright-") as folder:
        program = export_module(
            copy.deepcopy(module), example_inputs, workdir=Path(folder), origin=type(module).__name__
        )
        return to_module(program)


def layered(exported: ExportedProgram) -> GraphModule:
    """Return the module of `exported` with layers, see `to_module`."""
    import torch
    from torch.fx.graph import CodeGen

    with quiet():
        flat = exported.module(check_guards=False)
        graph = flat.graph
        graph.set_codegen(CodeGen())  # plain tensors in and out, no trees
        graph.owning_module = None  # it will be that of `root`
        _unwrap_outputs(graph)
        root = torch.nn.Module()
        made: dict[object, str] = {}
        for node in list(graph.nodes):
            if node.op == "call_module" and str(node.target).startswith("_guards"):
                graph.erase_node(node)
            elif node.op == "call_function":
                _flatten_freely(node)
                _put_layer(node, flat, root, made)
        graph.eliminate_dead_code(is_impure_node=lambda node: node.op in ("placeholder", "output"))
        _keep_other_tensors(graph, flat, root)
        module = torch.fx.GraphModule(root, graph)
        module.graph.lint()
        for parameter in module.parameters():
            parameter.requires_grad_(parameter.is_floating_point())
        return module.eval()


def to_program(
    module: torch.nn.Module, source: Program, examples: Sequence[torch.Tensor], *, folder: Path, step: str
) -> Program:
    """Write `module`, made from `source`, as `model.pt2` into `folder` and return its program.

    Inputs and outputs keep the names and layouts of `source`; `step` is added to its history.

    Args:
        examples: the tensors of one call, batch axis first.
    Raises:
        ConversionError: torch.export refuses the module, or the exported program does not agree with it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    made = export_module(module, examples, workdir=folder, origin=Path(FILE_NAME).stem)
    return replace(
        made,
        inputs=_named(made.inputs, source.inputs),
        outputs=_named(made.outputs, source.outputs),
        origin=source.origin,
        origin_format=source.origin_format,
        history=(*source.history, step),
        notes=tuple(dict.fromkeys((*source.notes, *made.notes))),
    )


def weighted_layers(module: torch.nn.Module) -> dict[str, torch.nn.Module]:
    """Return name -> convolution or linear layer, in the order of the module."""
    from torch import nn

    plain = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
    kinds = (*plain, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
    return {name: layer for name, layer in module.named_modules() if isinstance(layer, kinds)}


def outside_layers(module: torch.nn.Module) -> tuple[str, ...]:
    """Return a note on the matrices that are in no layer with weights and so stay as they are; none for few of them.

    They are an LSTM's, or tables of embeddings: without the note, 80 % zeros in the layers would look like 80 % of
    the model.
    """
    layers = weighted_layers(module)
    inside = {id(parameter) for layer in layers.values() for parameter in layer.parameters()}
    others = {
        name: parameter.numel()
        for name, parameter in module.named_parameters()
        if id(parameter) not in inside and parameter.ndim >= 2
    }
    total = sum(parameter.numel() for parameter in module.parameters())
    left = sum(others.values())
    if left <= _FEW * total:
        return ()
    shown = sorted(others, key=lambda name: -others[name])[:_SHOWN]
    more = f" and {len(others) - _SHOWN} more" if len(others) > _SHOWN else ""
    return (
        f"{left:,} of {total:,} parameters are in no convolution or linear layer and stay as they are: "
        f"{', '.join(shown)}{more}.",
    )


def select_layers(module: torch.nn.Module, patterns: Iterable[str]) -> dict[str, torch.nn.Module]:
    """Return the layers with weights whose names match one of `patterns` (names, or globs such as `features.*`).

    Raises:
        UnknownNameError: a pattern matches none, with the nearest names.
    """
    layers = weighted_layers(module)
    chosen: dict[str, torch.nn.Module] = {}
    for pattern in patterns:
        found = fnmatch.filter(layers, pattern)
        if not found:
            raise UnknownNameError.of("layer", pattern, layers)
        chosen |= {name: layers[name] for name in found}
    return {name: layer for name, layer in layers.items() if name in chosen}


def find_layer(module: torch.nn.Module, name: str) -> torch.nn.Module:
    """Return the submodule called `name`, of any type.

    Raises:
        UnknownNameError: there is none, with the nearest names.
    """
    known: dict[str, torch.nn.Module] = {title: layer for title, layer in module.named_modules() if title}
    if name not in known:
        raise UnknownNameError.of("layer", name, known)
    return known[name]


def fold_batch_norm(module: GraphModule) -> GraphModule:
    """Return a copy in which each batch normalisation behind a convolution or linear layer is part of that layer.

    It computes the same in evaluation mode, to the rounding of float32. A normalisation whose layer has other
    users too, or that does not follow one directly, stays.
    """
    import torch
    from torch import nn
    from torch.nn.utils.fusion import fuse_conv_bn_weights, fuse_linear_bn_weights

    folded = copy.deepcopy(module).eval()
    layers = dict(folded.named_modules())
    kinds = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
    foldable = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
    calls = _calls(folded.graph)
    for node in list(folded.graph.nodes):
        norm = layers.get(str(node.target)) if node.op == "call_module" else None
        before = node.args[0] if norm is not None else None
        if not isinstance(norm, kinds) or not isinstance(before, torch.fx.Node) or before.op != "call_module":
            continue
        layer = layers[str(before.target)]
        once = len(before.users) == 1 and calls[str(before.target)] == 1
        if not isinstance(layer, foldable) or not once or norm.running_mean is None:
            continue
        mean, variance = norm.running_mean, norm.running_var
        assert variance is not None  # as the mean is
        scale = torch.ones_like(mean) if norm.weight is None else norm.weight
        shift = torch.zeros_like(mean) if norm.bias is None else norm.bias
        bias = torch.zeros_like(mean) if layer.bias is None else layer.bias
        fuse = fuse_linear_bn_weights if isinstance(layer, nn.Linear) else fuse_conv_bn_weights
        weight, bias = fuse(layer.weight, bias, mean, variance, norm.eps, scale, shift)
        layer.weight, layer.bias = nn.Parameter(weight.detach()), nn.Parameter(bias.detach())
        node.replace_all_uses_with(before)
        folded.graph.erase_node(node)
    folded.delete_all_unused_submodules()
    folded.recompile()
    return folded


def _calls(graph: Graph) -> dict[str, int]:
    counts: dict[str, int] = {}
    for node in graph.nodes:
        if node.op == "call_module":
            counts[str(node.target)] = counts.get(str(node.target), 0) + 1
    return counts


def _named(made: Sequence[TensorSpec], source: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
    return tuple(
        replace(own, name=given.name, layout=given.layout) for own, given in zip(made, source, strict=True)
    )


def _unwrap_outputs(graph: Graph) -> None:
    output = next(node for node in graph.nodes if node.op == "output")
    values = output.args[0]
    if isinstance(values, (tuple, list)) and len(values) == 1:
        output.args = (values[0],)


def _flatten_freely(node: Node) -> None:
    """Make a view of [n, ...] as [n, all the rest] a flatten: it then holds for any number of channels."""
    import torch

    if str(node.target) not in ("aten.view.default", "aten.reshape.default", "aten._unsafe_view.default"):
        return
    source = node.args[0]
    assert isinstance(source, torch.fx.Node)
    before, after = source.meta.get("val"), node.meta.get("val")
    if not isinstance(before, torch.Tensor) or not isinstance(after, torch.Tensor):
        return
    if after.ndim != 2 or before.ndim < 3 or not all(isinstance(size, int) for size in before.shape[1:]):
        return
    if str(before.shape[0]) != str(after.shape[0]):
        return
    node.target = torch.ops.aten.flatten.using_ints
    node.args = (source, 1)


def _put_layer(node: Node, flat: GraphModule, root: torch.nn.Module, made: dict[object, str]) -> None:
    """Replace an operator on parameters by a call of its layer; the same call on the same parameters is one layer."""
    found = layer_of(node, flat)
    if found is None:
        return
    key = (str(node.target), found.key)
    if key not in made:
        made[key] = _free_name(root, found.weight_name, node.name)
        _set_submodule(root, made[key], found.layer)
    with node.graph.inserting_before(node):
        call = node.graph.create_node("call_module", made[key], found.inputs)
    call.meta = dict(node.meta)
    for replaced in found.replaces or (node,):
        replaced.replace_all_uses_with(call)
    for done in (*found.replaces, node):
        node.graph.erase_node(done)


def _free_name(root: torch.nn.Module, weight_name: str, node_name: str) -> str:
    """Return where the layer goes: the parameter's own path, or the operator's name where that is taken."""
    name = node_name
    for suffix in _SUFFIXES:
        if weight_name.endswith(suffix):
            name = weight_name.removesuffix(suffix)
            break
    names = {title for title, _ in root.named_modules()}
    candidate, number = name, 1
    # A layer cannot hold another one: `a` and `a.b` do not both become layers.
    while candidate in names or any(_is_layer(root, part) for part in _parents(candidate)):
        candidate = f"{name.replace('.', '_')}_{number}"
        number += 1
    return candidate


def _parents(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts))]


def _is_layer(root: torch.nn.Module, name: str) -> bool:
    import torch

    try:
        return type(root.get_submodule(name)) is not torch.nn.Module
    except AttributeError:
        return False


def _set_submodule(root: torch.nn.Module, name: str, layer: torch.nn.Module) -> None:
    import torch

    holder = root
    *parts, last = name.split(".")
    for part in parts:
        if part not in dict(holder.named_children()):
            holder.add_module(part, torch.nn.Module())
        holder = holder.get_submodule(part)
    holder.add_module(last, layer)


def _keep_other_tensors(graph: Graph, flat: GraphModule, root: torch.nn.Module) -> None:
    """Copy the parameters and constants that operators without a layer read; names inside a layer are moved out."""
    import torch

    kept: dict[str, str] = {}
    for node in graph.nodes:
        if node.op != "get_attr":
            continue
        target = str(node.target)
        if target not in kept:
            value = _tensor_at(flat, target)
            parts = target.split(".")
            if any(_is_layer(root, ".".join(parts[: count + 1])) for count in range(len(parts) - 1)):
                parts = [target.replace(".", "_")]
            holder = root
            for part in parts[:-1]:
                if part not in dict(holder.named_children()):
                    holder.add_module(part, torch.nn.Module())
                holder = holder.get_submodule(part)
            if isinstance(value, torch.nn.Parameter):
                holder.register_parameter(parts[-1], torch.nn.Parameter(value.detach().clone()))
            elif isinstance(value, torch.Tensor):
                holder.register_buffer(parts[-1], value.detach().clone())
            else:
                setattr(holder, parts[-1], value)
            kept[target] = ".".join(parts)
        node.target = kept[target]


def _tensor_at(module: torch.nn.Module, name: str) -> object:
    found: object = module
    for part in name.split("."):
        found = getattr(found, part)
    return found
