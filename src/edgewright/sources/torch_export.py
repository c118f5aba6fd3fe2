"""Export of a PyTorch module to `.pt2`: dynamic batch where it works, compared with the module."""

from __future__ import annotations

import inspect
import os
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from edgewright.core.errors import ConversionError, FormatMismatchError, UsageError, first_line
from edgewright.core.program import Program
from edgewright.core.tensors import DTYPES, Layout, TensorSpec
from edgewright.sources.torch_digest import digest_exported

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram

# The exported graph runs the same kernels as the module; what differs is the order of a few sums.
RTOL, ATOL_OF_MAX = 1e-4, 1e-5
_TO_NHWC, _TO_NCHW = (0, 2, 3, 1), (0, 3, 1, 2)


def export_module(
    module: torch.nn.Module,
    examples: Sequence[torch.Tensor],
    *,
    workdir: Path,
    origin: str,
    layout: Layout | None = None,
    notes: Sequence[str] = (),
) -> Program:
    """Write `module` as a `.pt2` into `workdir` and return the Program.

    The batch (dimension 0 of every input) is dynamic when the export with it agrees with the module for 1, 2
    and 3 samples; else it is that of the examples, with a note of why. The module's training modes and
    gradients are left as they were.

    Args:
        examples: the tensors of one call in the order of `forward`, batch first, in the module's own layout.
        layout: "nhwc" puts permutes around rank-4 inputs and outputs.
    Raises:
        UsageError: the examples are no tensors, or the module refuses them.
        ConversionError: torch.export refuses the module, or the exported program does not agree with it.
    """
    import torch

    _check_examples(examples)
    with _eval_mode(module), torch.no_grad():
        examples = tuple(example.detach().cpu() for example in examples)
        _run_module(module, examples)
        names = input_names(module, len(examples))
        if layout == "nhwc":
            examples = tuple(_permuted(example, _TO_NHWC) for example in examples)
            module = _channels_last(module, names)
        exported, note = _export(module, examples)
    path = save_exported(exported, workdir / f"{_stem(origin)}.pt2")
    history = f"exported from {origin} with torch {torch.__version__}"
    return Program(
        path=path,
        format="pt2",
        inputs=tensor_specs(exported, "input", names=names, layout=layout or "nchw"),
        outputs=tensor_specs(exported, "output", names=None, layout=layout or "nchw"),
        sha256=digest_exported(exported),
        origin=origin,
        origin_format="torch",
        precision=precision_of(exported),
        history=(history,),
        notes=(*notes, *([note] if note else [])),
    )


def save_exported(exported: ExportedProgram, path: Path) -> Path:
    """Write `exported` to `path` (ending in .pt2), complete or not at all."""
    import torch

    aside = path.with_name(f".{path.stem}.{os.getpid()}.pt2")
    try:
        torch.export.save(exported, str(aside))
        aside.replace(path)
    except OSError as err:
        raise UsageError(
            f"cannot write {path}: {err.strerror or err}. Free space or choose another folder."
        ) from err
    finally:
        aside.unlink(missing_ok=True)
    return path


def input_names(module: torch.nn.Module, count: int) -> tuple[str, ...]:
    """Return the names of the first `count` parameters of the module's forward."""
    try:
        parameters = list(inspect.signature(module.forward).parameters.values())
    except (TypeError, ValueError):
        parameters = []
    positional = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    extra = ["input" if count == 1 else f"input_{i}" for i in range(len(positional), count)]
    return tuple([*positional, *extra][:count])


def tensor_specs(
    exported: ExportedProgram, what: str, *, names: Sequence[str] | None, layout: Layout
) -> tuple[TensorSpec, ...]:
    """Return the specs of the user's inputs or outputs ("input" or "output") of `exported`, in flat order.

    Raises:
        FormatMismatchError: one of them is not a tensor of a known dtype.
    """
    import torch

    signature = exported.graph_signature
    nodes = {node.name: node for node in exported.graph.nodes}
    found = signature.user_inputs if what == "input" else signature.user_outputs
    specs = []
    for index, name in enumerate(found):
        value = nodes[name].meta.get("val") if isinstance(name, str) and name in nodes else None
        if not isinstance(value, torch.Tensor):
            raise FormatMismatchError(
                f"{what} {index} of the program is {name!r}, not a tensor. Export a module that takes and "
                "returns tensors only."
            )
        dtype = str(value.dtype).removeprefix("torch.")
        if dtype not in DTYPES:
            raise FormatMismatchError(
                f"{what} {index} has dtype {dtype}, which no runtime here takes. Cast it."
            )
        shape = tuple(int(dim) if isinstance(dim, int) else None for dim in value.shape)
        if names is not None:
            title = names[index]
        elif what == "output":
            title = "output" if len(found) == 1 else f"output_{index}"
        else:
            title = name
        specs.append(
            TensorSpec(name=title, shape=shape, dtype=dtype, layout=layout if len(shape) == 4 else None)
        )
    return tuple(specs)


def precision_of(exported: ExportedProgram) -> str:
    """Return w8a8, w4a8 or w8 for a program quantized by PT2E, fp16 for half weights, else fp32.

    What most weights have decides between w8a8 and w4a8.
    """
    import torch

    names = [str(node.target) for node in exported.graph.nodes if node.op == "call_function"]
    quantizes = any("quantize_per_tensor" in n and "dequantize" not in n for n in names)
    if quantizes:
        return "w4a8" if _has_low_bits(exported) else "w8a8"
    if any("dequantize_per_" in name for name in names):
        return "w8"
    dtypes = {t.dtype for t in exported.state_dict.values() if t.is_floating_point()}
    return "fp16" if dtypes and dtypes <= {torch.float16, torch.bfloat16} else "fp32"


def _has_low_bits(exported: ExportedProgram) -> bool:
    """Return whether most quantized weights have no more than 16 values."""
    import torch

    computed = set(exported.graph_signature.user_inputs)
    sizes = {True: 0, False: 0}
    for node in exported.graph.nodes:
        if "quantized_decomposed.dequantize" not in str(node.target):
            continue
        weight, (low, high) = node.args[0], node.args[-3:-1]
        if isinstance(weight, torch.fx.Node) and "quantized_decomposed.quantize" in str(weight.target):
            weight = weight.args[0]
        if not isinstance(weight, torch.fx.Node) or weight.op != "placeholder" or weight.name in computed:
            continue
        if isinstance(low, int) and isinstance(high, int):
            sizes[high - low < 16] += weight.meta["val"].numel()
    return sizes[True] > sizes[False]


def repeat_batch(example: torch.Tensor, size: int) -> torch.Tensor:
    """Return `size` samples made of those of `example`, over and over."""
    import torch

    return torch.cat([example] * (size // example.shape[0] + 1))[:size].clone()


def flat_tensors(outputs: object) -> list[torch.Tensor]:
    """Return the tensors of a module's result in the order of torch's pytree.

    Raises:
        ConversionError: one of them is not a tensor.
    """
    import torch
    from torch.utils._pytree import tree_leaves

    leaves = tree_leaves(outputs)
    if not leaves or not all(isinstance(leaf, torch.Tensor) for leaf in leaves):
        kinds = sorted({type(leaf).__name__ for leaf in leaves})
        raise ConversionError(f"the module returns {kinds}; only tensors can be exported. Wrap the module.")
    return leaves


def _export(module: torch.nn.Module, examples: Sequence[torch.Tensor]) -> tuple[ExportedProgram, str]:
    """Return the program and the note on its batch (empty when dynamic)."""
    batches = {example.shape[0] for example in examples if example.ndim}
    if len(batches) != 1 or any(example.ndim == 0 for example in examples):
        why = "the inputs do not share their first dimension"
    elif 0 in batches:
        raise UsageError("the example inputs have 0 samples; give at least one.")
    else:
        exported, why = _export_dynamic(module, examples)
        if exported is not None:
            return exported, ""
    exported = _call_export(module, examples, dynamic=False)
    problem = disagreement(exported, module, examples)
    if problem:
        raise ConversionError(
            f"the exported program does not agree with the module on the example inputs: {problem}. "
            "Check forward() for randomness and for Python state."
        )
    batch = batches.pop() if len(batches) == 1 else "as in the examples"
    return exported, f"batch made static ({batch}): {why}"


def _export_dynamic(
    module: torch.nn.Module, examples: Sequence[torch.Tensor]
) -> tuple[ExportedProgram | None, str]:
    # Tracing with one sample would fix the batch to 1 (torch specialises sizes 0 and 1).
    pair = tuple(repeat_batch(example, max(2, example.shape[0])) for example in examples)
    try:
        exported = _call_export(module, pair, dynamic=True)
        for size in (1, 2, 3):
            batch = tuple(repeat_batch(example, size) for example in examples)
            problem = disagreement(exported, module, batch)
            if problem:
                return None, f"with {size} samples {problem}"
    except ConversionError as err:
        return None, str(err)
    return exported, ""


def _call_export(
    module: torch.nn.Module, examples: Sequence[torch.Tensor], *, dynamic: bool
) -> ExportedProgram:
    import torch
    from torch.export import Dim

    shapes = tuple({0: Dim("batch")} for _ in examples) if dynamic else None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.export.export(module, tuple(examples), dynamic_shapes=shapes)
    except Exception as err:
        raise ConversionError(f"torch.export refused: {first_line(err)}") from err


def disagreement(exported: ExportedProgram, module: torch.nn.Module, inputs: Sequence[torch.Tensor]) -> str:
    """Return how the outputs of `exported` differ from those of `module`, or an empty text."""
    import torch

    want = flat_tensors(_run_module(module, inputs))
    try:
        got = flat_tensors(exported.module()(*(tensor.clone() for tensor in inputs)))
    except Exception as err:
        return f"the exported program fails: {first_line(err)}"
    for index, (left, right) in enumerate(zip(want, got, strict=True)):
        if left.shape != right.shape or left.dtype != right.dtype:
            return f"output {index} is {right.dtype}{list(right.shape)}, not {left.dtype}{list(left.shape)}"
        if not left.numel():
            continue
        if not left.is_floating_point():
            if not torch.equal(left, right):
                return f"output {index} differs"
            continue
        scale = float(left.abs().nan_to_num(0.0, 0.0, 0.0).max())
        if not torch.allclose(left, right, rtol=RTOL, atol=ATOL_OF_MAX * scale + 1e-7, equal_nan=True):
            return f"output {index} differs by up to {float((left - right).abs().max()):.3g} (largest {scale:.3g})"
    return ""


def _run_module(module: torch.nn.Module, inputs: Sequence[torch.Tensor]) -> object:
    try:
        return module(*(tensor.clone() for tensor in inputs))
    except Exception as err:
        shapes = ", ".join(f"{str(t.dtype).removeprefix('torch.')}{list(t.shape)}" for t in inputs)
        raise UsageError(
            f"the module refuses inputs of {shapes}: {first_line(err)}. Give the shapes that forward() takes."
        ) from err


def _channels_last(module: torch.nn.Module, names: Sequence[str]) -> torch.nn.Module:
    """Return `module` with NHWC rank-4 inputs and outputs; `names` are those of its inputs."""
    import torch
    from torch.utils._pytree import tree_map

    class ChannelsLast(torch.nn.Module):
        def __init__(self, inner: torch.nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, *inputs: torch.Tensor) -> object:
            outputs = self.inner(*(_permuted(tensor, _TO_NCHW) for tensor in inputs))
            return tree_map(lambda tensor: _permuted(tensor, _TO_NHWC), outputs)

    # torch.export names its inputs after the signature, which shall be that of the module inside.
    parameters = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in names]
    own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    ChannelsLast.forward.__signature__ = inspect.Signature([own, *parameters])  # type: ignore[attr-defined]
    return ChannelsLast(module)


def _permuted(tensor: torch.Tensor, axes: tuple[int, ...]) -> torch.Tensor:
    return tensor.permute(axes).contiguous() if tensor.ndim == 4 else tensor


def _check_examples(examples: Sequence[torch.Tensor]) -> None:
    import torch

    if not examples or not all(isinstance(example, torch.Tensor) for example in examples):
        kinds = [type(example).__name__ for example in examples]
        raise UsageError(
            f"example_inputs are {kinds}; expected one torch.Tensor for each input of forward()."
        )


@contextmanager
def _eval_mode(module: torch.nn.Module) -> Iterator[None]:
    was_training = [(child, child.training) for child in module.modules()]
    # The module of an exported program refuses this: its mode is part of its graph.
    with suppress(NotImplementedError):
        module.eval()
    try:
        yield
    finally:
        for child, training in was_training:
            child.training = training


def _stem(origin: str) -> str:
    return re.sub(r"\W+", "_", origin).strip("_") or "model"
