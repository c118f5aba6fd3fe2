"""PyTorch sources: a `.pt2` archive, or a factory with its weights."""

from __future__ import annotations

import importlib
import logging
import sys
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgewright.core.errors import (
    ConversionError,
    EdgewrightError,
    FormatMismatchError,
    IntegrityError,
    UnavailableError,
    UnknownNameError,
    UsageError,
    first_line,
)
from edgewright.core.files import sha256_of
from edgewright.core.program import Program
from edgewright.core.tensors import Layout
from edgewright.sources.shapes import InputShape, parse_input_shapes
from edgewright.sources.torch_archive import write_safe_copy
from edgewright.sources.torch_export import export_module, input_names, precision_of, tensor_specs
from edgewright.sources.torch_weights import load_weights

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram

_SEED = 20240229


def read_pt2(path: Path, *, spec: str, workdir: Path, layout: Layout | None) -> Program:
    """Return the Program of a `.pt2` file; what is read later is a checked copy of it in `workdir`.

    The digest is that of the user's file.

    Raises:
        FormatMismatchError, IntegrityError: see `torch_archive`; or its signature is not tensors by position.
    """
    digest = sha256_of(path)
    copy = workdir / f"{path.stem}.{digest[:12]}.pt2"
    aside = workdir / f".{copy.name}.part"
    try:
        write_safe_copy(path, aside)
        aside.replace(copy)
    finally:
        aside.unlink(missing_ok=True)
    exported = load_exported(copy, title=spec)
    _check_positional(exported, spec)
    inputs = tensor_specs(exported, "input", names=None, layout="nchw")
    if layout == "nhwc" and any(len(tensor.shape) == 4 for tensor in inputs):
        import torch

        _drop_detach(exported)
        module = exported.module(check_guards=False)
        examples = tuple(
            _example(InputShape(shape=tuple(d or 1 for d in s.shape), dtype=s.dtype), torch.Generator())
            for s in inputs
        )
        program = export_module(module, examples, workdir=workdir, origin=spec, layout="nhwc")
        return Program.from_json(program.to_json() | {"origin_format": "pt2"})
    return Program(
        path=copy,
        format="pt2",
        inputs=inputs,
        outputs=tensor_specs(exported, "output", names=None, layout="nchw"),
        sha256=digest,
        origin=spec,
        origin_format="pt2",
        precision=precision_of(exported),
        history=(f"loaded from {path.name}",),
    )


def load_exported(path: Path, *, title: str) -> ExportedProgram:
    """Return the program in a `.pt2` that `write_safe_copy` or `save_exported` wrote.

    Raises:
        IntegrityError: torch cannot make a program of it.
    """
    import torch

    # A failure is reported by our own error; torch's log would repeat it with a traceback.
    logging.getLogger("torch.export").setLevel(logging.CRITICAL)
    _register_operators(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exported = torch.export.load(str(path))
            exported.validate()  # type: ignore[no-untyped-call]
            return exported
    except Exception as err:
        raise IntegrityError(
            f"{title} is a .pt2 archive, but torch {torch.__version__} cannot read its program: "
            f"{first_line(err)}. It may be damaged or written by another version; export it again."
        ) from err


def _register_operators(path: Path) -> None:
    """Import what defines the operators of a quantized program; torch alone does not know them.

    Raises:
        UnavailableError: torchao is needed and not installed.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            model = next(name for name in archive.namelist() if name.endswith("models/model.json"))
            text = archive.read(model)
    except (zipfile.BadZipFile, StopIteration, OSError, EOFError) as err:
        raise IntegrityError(f"{path} is not a whole .pt2 archive: {err}. Export it again.") from err
    if b"torch.ops.quantized_decomposed." not in text and b"torch.ops.torchao." not in text:
        return
    try:
        importlib.import_module("torchao.quantization.pt2e.quantize_pt2e")
    except ImportError as err:
        raise UnavailableError(
            f"{path.name} is a quantized program, which needs torchao: {first_line(err)}. "
            "Install it with pip install 'edgewright[torch]'."
        ) from err


def read_factory(
    spec: str,
    *,
    weights: Path | None,
    input_shapes: Sequence[str],
    import_path: Sequence[str],
    workdir: Path,
    layout: Layout | None,
) -> Program:
    """Return the Program of the module that `package.module:factory` makes.

    Args:
        input_shapes: see `sources.shapes`, in the module's own layout (NCHW).
        import_path: where packages are looked for, before this process's own path.
    Raises:
        UsageError: no such factory, it makes no module, or the weights or shapes do not fit it.
        ConversionError: the factory fails, or the module cannot be exported.
    """
    import torch

    module = _make(spec, import_path)
    notes = load_weights(module, weights) if weights is not None else ("weights as the factory made them",)
    shapes = _in_order(parse_input_shapes(input_shapes), module)
    generator = torch.Generator().manual_seed(_SEED)
    examples = [_example(shape, generator) for shape in shapes]
    return export_module(module, examples, workdir=workdir, origin=spec, layout=layout, notes=notes)


def _make(spec: str, import_path: Sequence[str]) -> torch.nn.Module:
    import torch

    module_name, factory_name = spec.split(":")
    sys.path[:0] = [entry for entry in import_path if entry not in sys.path]
    try:
        package = importlib.import_module(module_name)
    except ModuleNotFoundError as err:
        raise UsageError(
            f"cannot import {module_name!r} of {spec!r}: {err}. Run from the folder that holds it, or install it."
        ) from err
    except Exception as err:
        raise UsageError(
            f"importing {module_name!r} failed with {type(err).__name__}: {first_line(err)}. Correct it."
        ) from err
    factory = getattr(package, factory_name, None)
    if factory is None:
        public = [
            name for name, value in vars(package).items() if callable(value) and not name.startswith("_")
        ]
        raise UnknownNameError.of(f"factory in {module_name}", factory_name, public)
    if isinstance(factory, torch.nn.Module):
        return factory
    try:
        made = factory()
    except EdgewrightError:
        raise
    except Exception as err:
        raise ConversionError(
            f"factory {spec} failed with {type(err).__name__}: {first_line(err)}. It is called without arguments."
        ) from err
    if not isinstance(made, torch.nn.Module):
        raise UsageError(f"factory {spec} returned {type(made).__name__}; a torch.nn.Module is expected.")
    return made


def _in_order(shapes: Sequence[InputShape], module: torch.nn.Module) -> list[InputShape]:
    """Return named shapes in the order of forward; unnamed ones as they are."""
    if not shapes[0].name:
        return list(shapes)
    by_name = {str(shape.name): shape for shape in shapes}
    order = input_names(module, len(shapes))
    unknown = sorted(set(by_name) - set(order))
    if unknown:
        raise UnknownNameError.of("input", unknown[0], order)
    return [by_name[name] for name in order]


def _example(shape: InputShape, generator: torch.Generator) -> torch.Tensor:
    """Return normal values for a float input, and 0 or 1 for an integer one (valid indices of any table)."""
    import torch

    dtype = getattr(torch, shape.dtype)
    if dtype.is_floating_point:
        return torch.randn(shape.shape, generator=generator).to(dtype)
    return torch.randint(0, 2, shape.shape, generator=generator).to(dtype)


def _drop_detach(exported: ExportedProgram) -> None:
    """Take out detach and copies of constants, which change no value and which torch 2.13 cannot export again."""
    import torch

    aten = torch.ops.aten
    idle = (aten.detach_.default, aten.detach.default, aten.lift_fresh_copy.default)
    for node in list(exported.graph.nodes):
        if node.op == "call_function" and node.target in idle:
            node.replace_all_uses_with(node.args[0])
            exported.graph.erase_node(node)
    exported.graph_module.recompile()


def _check_positional(exported: ExportedProgram, spec: str) -> None:
    signature = exported.call_spec.in_spec
    count = len(exported.graph_signature.user_inputs)
    leaves = signature.num_leaves if signature is not None else count
    args_spec = signature.child(0) if signature is not None else None
    is_flat = args_spec is None or (leaves == args_spec.num_leaves == args_spec.num_children)
    if not is_flat:
        raise FormatMismatchError(
            f"{spec} takes keyword arguments or nested inputs; tensors by position are expected. "
            "Export a wrapper whose forward takes each tensor as its own positional argument."
        )
