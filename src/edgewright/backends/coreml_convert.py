"""From a PyTorch program to a Core ML model with coremltools; the package is written by our own code.

A program of torch.export is traced again with torch.jit, though coremltools reads exported programs too. Measured with
coremltools 9.0 on ten models: that reader fails on two (a default argument that it misses, an LSTM), and loses the
argument `approximate="tanh"` of gelu without a word (1.8e-4 off in float32); the tracing route did all ten to 2e-6.
Quantized programs take the other route, with every argument spelled out, for only that one knows int8 weights.
"""

from __future__ import annotations

import re
import shutil
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np

from edgewright.backends import vendor
from edgewright.backends.coreml_file import WEIGHTS_PATH, write_package
from edgewright.core.errors import ConversionError, first_line
from edgewright.core.program import Program
from edgewright.core.target import INTEGER_PRECISIONS, Precision
from edgewright.core.tensors import Array, TensorSpec

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram
    from torch.fx import GraphModule, Node

SPARSITY = 0.5
MIN_WEIGHTS = 512  # smaller tensors are left as they are: their scales, tables or masks would weigh as much
PALETTE_BITS = 4
PALETTE_GROUP = 16  # output channels that share a palette of 16 float16 values: 32 bytes
_NAME = re.compile(r"[A-Za-z_]\w{0,200}")
_VOLATILE_METADATA = "com.github.apple.coremltools.conversion_date"
_OUTPUT_DTYPES = {"float16": np.float16, "float32": np.float32}


class _Metadata(Protocol):
    userDefined: dict[str, str]  # noqa: N815 (protobuf's name)


class _Description(Protocol):
    metadata: _Metadata


class _Spec(Protocol):
    description: _Description

    def SerializeToString(self, *, deterministic: bool) -> bytes: ...  # noqa: N802 (protobuf's name)


class Converted(Protocol):
    """coremltools' model, as far as it is used."""

    def save(self, path: str) -> None: ...
    def get_spec(self) -> _Spec: ...


class _WeightMetadata(Protocol):
    val: Array


@contextmanager
def _quiet() -> Iterator[None]:
    """Drop every warning: tracing and converting warn of what the comparison with the source finds better."""
    with vendor.quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def to_coreml(program: Program, precision: Precision) -> Converted:
    """Return coremltools' model of a `.pt2` or TorchScript program, with inputs and outputs named like its own.

    Raises:
        ConversionError: the converter refused, with every unsupported operator by name.
    """
    with _quiet():
        import coremltools as ct
        import torch

    examples = tuple(
        torch.zeros(vendor.static_shape(spec), dtype=getattr(torch, spec.dtype)) for spec in program.inputs
    )
    names = _names([*program.inputs, *program.outputs])
    options: dict[str, object] = {
        "convert_to": "mlprogram",
        "minimum_deployment_target": ct.target.iOS18,
        "compute_precision": ct.precision.FLOAT32 if precision is Precision.FP32 else ct.precision.FLOAT16,
        "skip_model_load": True,
        "outputs": [
            ct.TensorType(name=name, dtype=_OUTPUT_DTYPES.get(spec.dtype, np.int32))
            for name, spec in zip(names[len(program.inputs) :], program.outputs, strict=True)
        ],
    }
    if program.precision in INTEGER_PRECISIONS:
        source: object = _folded(program, examples)
    else:
        source = _traced(program, examples)
        options["inputs"] = [
            ct.TensorType(
                name=name,
                shape=tuple(example.shape),
                dtype=np.int32 if spec.dtype == "int64" else np.dtype(spec.dtype).type,
            )
            for name, spec, example in zip(names, program.inputs, examples, strict=False)
        ]
    try:
        with _quiet():
            return cast(Converted, ct.convert(source, **options))
    except (
        Exception
    ) as err:  # the converter raises NotImplementedError, ValueError, RuntimeError and AssertionError
        raise ConversionError(_explained(err, source, program)) from err


def compressed(model: Converted, precision: Precision) -> Converted:
    """Return `model` with its weights in int8, in palettes of 16 values, or half of them pruned.

    Raises:
        ConversionError: coremltools cannot compress the weights.
    """
    import coremltools.optimize.coreml as cto

    try:
        with _quiet():
            if precision is Precision.W8:
                quantized = cto.OpLinearQuantizerConfig(
                    mode="linear_symmetric",
                    dtype="int8",
                    granularity="per_channel",
                    weight_threshold=MIN_WEIGHTS,
                )
                config = cto.OptimizationConfig(global_config=quantized)
                return cast(Converted, cto.linear_quantize_weights(model, config))
            found = cast(
                "dict[str, _WeightMetadata]", cto.get_weights_metadata(model, weight_threshold=MIN_WEIGHTS)
            )
            # Filters of few weights (depthwise) suffer most and save least.
            names = [name for name, weight in found.items() if weight.val[0].size >= PALETTE_GROUP]
            if precision is Precision.PRUNED:
                pruned = {name: _pruned(found[name].val) for name in names}
                return cast(
                    Converted, cto.prune_weights(model, cto.OptimizationConfig(op_name_configs=pruned))
                )
            configs = {name: _palettes(found[name].val) for name in names}
            configs |= {name: _exact_palette() for name, weight in found.items() if _is_clustered(weight.val)}
            return cast(
                Converted, cto.palettize_weights(model, cto.OptimizationConfig(op_name_configs=configs))
            )
    except Exception as err:  # of any class, from numpy's to its own
        raise ConversionError(
            f"coremltools cannot make {precision} weights: {first_line(err)}. Leave this precision out."
        ) from err


def _pruned(weights: Array) -> object:
    """Return the configuration that zeroes the smaller half of `weights`.

    The threshold is found here: coremltools 9.0 looks for it with percentiles in float16, which have no numbers beyond
    65,504, so that it leaves every larger tensor as it was, without a word.
    """
    import coremltools.optimize.coreml as cto

    sizes = np.sort(np.abs(weights.astype(np.float32)), axis=None)
    threshold = float(sizes[int(sizes.size * SPARSITY) - 1])
    return cto.OpThresholdPrunerConfig(
        threshold=threshold, minimum_sparsity_percentile=0.0, weight_threshold=MIN_WEIGHTS
    )


def _palettes(weights: Array) -> object:
    import coremltools.optimize.coreml as cto

    is_grouped = weights.shape[0] % PALETTE_GROUP == 0 and weights.shape[0] > PALETTE_GROUP
    return cto.OpPalettizerConfig(
        mode="kmeans",
        nbits=PALETTE_BITS,
        granularity="per_grouped_channel" if is_grouped else "per_tensor",
        group_size=PALETTE_GROUP,
        weight_threshold=MIN_WEIGHTS,
    )


def _is_clustered(weights: Array) -> bool:
    """Return whether one palette holds every weight, as after `compress.cluster`."""
    return len(np.unique(weights)) <= 1 << PALETTE_BITS


def _exact_palette() -> object:
    """Return the configuration of one palette of the weights' own values, in 1, 2 or 4 bits."""
    import coremltools.optimize.coreml as cto

    return cto.OpPalettizerConfig(mode="unique", weight_threshold=MIN_WEIGHTS)


def write(model: Converted, folder: Path) -> tuple[Path, ...]:
    """Write `model` as the package `folder`, without the date and the random names that coremltools puts in."""
    with tempfile.TemporaryDirectory(prefix=".coreml-", dir=folder.parent) as scratch:
        saved = Path(scratch) / "saved.mlpackage"
        with _quiet():
            model.save(str(saved))
        spec = model.get_spec()
        spec.description.metadata.userDefined.pop(_VOLATILE_METADATA, None)
        weights = saved / WEIGHTS_PATH
        shutil.rmtree(folder, ignore_errors=True)
        return write_package(
            folder, spec.SerializeToString(deterministic=True), weights if weights.is_file() else None
        )


def _names(specs: Sequence[TensorSpec]) -> list[str]:
    """Return names that Core ML takes, the source's own where they are unique and plain."""
    count = Counter(spec.name for spec in specs)
    return [
        spec.name if count[spec.name] == 1 and _NAME.fullmatch(spec.name) else f"tensor_{index}"
        for index, spec in enumerate(specs)
    ]


def _static(program: Program, examples: tuple[torch.Tensor, ...]) -> ExportedProgram:
    """Return the program exported again with the batch of the examples: torch.jit cannot trace a symbolic one."""
    import torch

    with _quiet():
        exported = vendor.load_exported(program)
        if all(spec.is_static for spec in program.inputs):
            return exported
        try:
            return torch.export.export(exported.module(check_guards=False), examples)
        except Exception as err:
            raise ConversionError(
                f"{program.path.name} cannot be given a static batch of 1: {first_line(err)}. "
                "Export the model with a batch of 1."
            ) from err


def _traced(program: Program, examples: tuple[torch.Tensor, ...]) -> torch.jit.ScriptModule:
    import torch

    if program.format == "torchscript":
        try:
            with _quiet():
                module = torch.jit.load(program.path, map_location="cpu")  # type: ignore[no-untyped-call]
            return cast("torch.jit.ScriptModule", module.eval())
        except Exception as err:
            raise ConversionError(
                f"torch cannot load {program.path.name}: {first_line(err)}. Save it again."
            ) from err
    exported = _static(program, examples)
    try:
        with _quiet(), torch.no_grad():
            module = exported.module(check_guards=False)
            traced = torch.jit.trace(module, examples, check_trace=False)  # type: ignore[no-untyped-call]
            return cast("torch.jit.ScriptModule", traced)
    except Exception as err:
        raise ConversionError(
            f"torch.jit cannot trace {program.path.name}: {first_line(err)}. "
            "Core ML needs static shapes and no control flow on values."
        ) from err


def _folded(program: Program, examples: tuple[torch.Tensor, ...]) -> ExportedProgram:
    """Return a PT2E program with int8 weights stored as such, and no argument left to a default."""
    import torch

    with _quiet():
        module = _static(program, examples).module(check_guards=False)
        for node in list(module.graph.nodes):
            if str(node.target).startswith("quantized_decomposed.quantize_per") and _is_constant(node):
                _fold(module, node)
        module.graph.lint()
        module.recompile()
        exported: ExportedProgram = torch.export.export(module, examples).run_decompositions({})
        for node in exported.graph.nodes:
            _spell_out(node)
        exported.graph_module.recompile()
        return exported


def _is_constant(node: Node) -> bool:
    return all(argument.op == "get_attr" for argument in node.all_input_nodes)


def _fold(module: GraphModule, node: Node) -> None:
    """Replace the quantization of a constant by its result."""
    import torch
    from torch.fx.node import map_arg

    def value(argument: Node) -> torch.Tensor:
        found: object = module
        for part in str(argument.target).split("."):
            found = getattr(found, part)
        assert isinstance(found, torch.Tensor)
        return found

    assert callable(node.target)
    with torch.no_grad():
        result = node.target(*cast("tuple[object, ...]", map_arg(node.args, value)))
    name = f"folded_{node.name}"
    module.register_buffer(name, result)
    with module.graph.inserting_before(node):
        constant = module.graph.get_attr(name)
    node.replace_all_uses_with(constant)
    module.graph.erase_node(node)


def _spell_out(node: Node) -> None:
    """Give an operator all its arguments by position: coremltools counts them, and does not look at keywords."""
    schema = getattr(node.target, "_schema", None)
    if node.op != "call_function" or schema is None:
        return
    given = list(node.args)
    keywords = dict(node.kwargs)
    for argument in schema.arguments[len(given) :]:
        if argument.kwarg_only:
            break
        if argument.name in keywords:
            given.append(keywords.pop(argument.name))
        elif argument.has_default_value():
            given.append(argument.default_value)
        else:
            break
    node.args, node.kwargs = tuple(given), keywords


def _explained(err: Exception, source: object, program: Program) -> str:
    missing = _unknown_operators(source)
    if missing:
        return (
            f"coremltools has no converter for {', '.join(missing)} of {program.path.name}. "
            "Rewrite the model without them."
        )
    return (
        f"coremltools cannot convert {program.path.name}: {first_line(err)}. "
        "Rewrite the part of the model that it names, or leave this runtime out."
    )


def _unknown_operators(source: object) -> list[str]:
    """Return the operators of a program that coremltools has no converter for."""
    from coremltools.converters.mil.frontend.torch.torch_op_registry import _TORCH_OPS_REGISTRY as REGISTRY

    graph = getattr(source, "inlined_graph", None)
    if graph is not None:
        kinds = {str(node.kind()) for node in graph.nodes()}
    else:
        nodes = getattr(getattr(source, "graph", None), "nodes", ())
        kinds = {str(node.target) for node in nodes if node.op == "call_function"}
    structure = ("prim::Constant", "prim::GetAttr", "prim::SetAttr", "prim::CallMethod", "prim::Param")
    return sorted(
        kind
        for kind in kinds
        if kind not in structure and "getitem" not in kind and REGISTRY.get_func(kind) is None
    )
