"""TorchScript -> torch.export and back, each compared with the other on random inputs."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgewright.backends import vendor
from edgewright.backends.torchscript_lstm import calls_lstm, checked_states
from edgewright.backends.torchscript_session import load_script, run_script
from edgewright.bridges import onnx_check
from edgewright.core.contracts import Support
from edgewright.core.errors import ConversionError, EdgewrightError, FormatMismatchError, first_line
from edgewright.core.files import sha256_of
from edgewright.core.program import Program
from edgewright.core.tensors import TensorSpec

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram

    Call = Callable[..., object]

_PACKAGES = ("torch",)
_TRACE_BATCH = 2  # torch.export takes sizes 0 and 1 for constants
# The same kernels run on both sides; what differs is the order of a few sums.
_RTOL, _ATOL_OF_MAX = 1e-4, 2e-5
_CONVOLUTIONS = {3: "conv1d", 4: "conv2d", 5: "conv3d"}


class TorchScriptToTorch:
    """Writes a TorchScript archive as a program of torch.export, with torch's own converter."""

    name = "torchscript-to-torch"
    reads: tuple[str, ...] = ("torchscript",)
    writes = "pt2"
    environment = ""

    def probe(self) -> Support:
        """Say whether torch is here."""
        return vendor.support(_PACKAGES, extra="torch")

    def convert(self, program: Program, workdir: Path) -> Program:
        """Return the program as a `.pt2` in `workdir`; the batch stays dynamic where the result agrees with it.

        Raises:
            FormatMismatchError: the program is not TorchScript.
            ConversionError: torch's converter refuses it, or the result gives other numbers.
        """
        from edgewright.sources.torch_digest import digest_exported
        from edgewright.sources.torch_export import save_exported

        if program.format != "torchscript":
            raise FormatMismatchError(
                f"{self.name} reads torchscript, but {program.path.name} is {program.format}."
            )
        script = load_script(program.path)
        exported, notes = self._exported(program, script)
        workdir.mkdir(parents=True, exist_ok=True)
        path = save_exported(exported, workdir / f"{program.path.stem}.pt2")
        return replace(
            program if not notes else _made_static(program),
            path=path,
            format=self.writes,
            sha256=digest_exported(exported),
            history=(*program.history, "torchscript -> pt2 (torch.export)"),
            notes=(*program.notes, *notes),
        )

    def _exported(
        self, program: Program, script: torch.jit.ScriptModule
    ) -> tuple[ExportedProgram, tuple[str, ...]]:
        why = ""
        if all(spec.has_dynamic_batch for spec in program.inputs):
            try:
                exported = _converted(program, script, _TRACE_BATCH)
                with checked_states(calls_lstm(script)):
                    for batch in (1, 2, 3):
                        _compare(program, script.forward, exported.module(), batch, "torch.export")
            except ConversionError as err:
                why = str(err)
            else:
                return exported, ()
        exported = _converted(program, script, None)
        _compare(program, script.forward, exported.module(), 1, "torch.export")
        return exported, (f"batch made static (1): {why}",) if why else ()


class TorchToTorchScript:
    """Writes a program of torch.export as TorchScript, by a trace."""

    name = "torch-to-torchscript"
    reads: tuple[str, ...] = ("pt2",)
    writes = "torchscript"
    environment = ""

    def probe(self) -> Support:
        """Say whether torch is here."""
        return vendor.support(_PACKAGES, extra="torch")

    def convert(self, program: Program, workdir: Path) -> Program:
        """Return the program as TorchScript in `workdir`; the batch stays dynamic where the trace agrees with it.

        Raises:
            FormatMismatchError: the program is not a `.pt2`, or is quantized.
            ConversionError: the trace fails, or gives other numbers.
        """
        import torch

        if program.format != "pt2" or program.precision != "fp32":
            raise FormatMismatchError(
                f"{self.name} reads float pt2 programs, but {program.path.name} is {program.format} in "
                f"{program.precision}."
            )
        module = vendor.load_exported(program).module(check_guards=False)
        module._forward_pre_hooks.clear()  # the check of shapes, whose symbols a trace cannot follow
        workdir.mkdir(parents=True, exist_ok=True)
        path = workdir / f"{program.path.stem}.torchscript"
        is_dynamic = all(spec.has_dynamic_batch for spec in program.inputs)
        example = _random(program.inputs, _TRACE_BATCH if is_dynamic else 1)
        notes: tuple[str, ...] = ()
        try:
            with vendor.quiet(), torch.no_grad(), checked_states(calls_lstm(module)):
                _trace(module, example, path)
                script = load_script(path)
                try:
                    for batch in (1, 2, 3) if is_dynamic else (1,):
                        _compare(program, module, script.forward, batch, "the trace")
                except ConversionError as err:
                    if not is_dynamic:
                        raise
                    _trace(module, _random(program.inputs, 1), path)
                    script = load_script(path)
                    _compare(program, module, script.forward, 1, "the trace")
                    notes = (f"batch made static (1): {err}",)
        except EdgewrightError:
            raise
        except Exception as err:
            raise ConversionError(
                f"torch cannot trace {program.path.name}: {type(err).__name__}: {first_line(err)}."
            ) from err
        return replace(
            program if not notes else _made_static(program),
            path=path,
            format=self.writes,
            sha256=sha256_of(path),
            history=(*program.history, "pt2 -> torchscript (torch.jit.trace)"),
            notes=(*program.notes, *notes),
        )


def _trace(module: torch.nn.Module, example: Sequence[torch.Tensor], path: Path) -> None:
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # sizes that the trace takes for constants: the comparison finds those
        traced = torch.jit.trace(module, tuple(example), check_trace=False)  # type: ignore[no-untyped-call]
        traced.save(str(path))


def _converted(program: Program, script: torch.jit.ScriptModule, batch: int | None) -> ExportedProgram:
    """Return the exported program, with a dynamic batch where `batch` is given."""
    import torch
    from torch._export.converter import TS2EPConverter

    example = tuple(_random(program.inputs, batch or 1))
    shapes = tuple({0: torch.export.Dim("batch")} for _ in example) if batch else None
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # buffers that the graph does not use
            module = TS2EPConverter(script, example, {}).convert().module(check_guards=False)
            _name_convolutions(module)
            return torch.export.export(module, example, dynamic_shapes=shapes)
    except Exception as err:
        raise ConversionError(
            f"torch cannot export {program.path.name}: {type(err).__name__}: {first_line(err)}. "
            "Export the PyTorch module itself (package.module:factory)."
        ) from err


def _name_convolutions(module: torch.nn.Module) -> None:
    """Replace aten.convolution by aten.conv1d, 2d, 3d, which quantizers and lowerings know."""
    import torch

    assert isinstance(module, torch.fx.GraphModule)
    for node in module.graph.nodes:
        if node.op != "call_function" or node.target is not torch.ops.aten.convolution.default:
            continue
        source, weight, bias, stride, padding, dilation, is_transposed, _, groups = node.args
        value = weight.meta.get("val")
        if is_transposed or value is None or value.ndim not in _CONVOLUTIONS:
            continue
        node.target = getattr(torch.ops.aten, _CONVOLUTIONS[value.ndim]).default
        node.args = (source, weight, bias, stride, padding, dilation, groups)
    module.recompile()


def _made_static(program: Program) -> Program:
    return replace(program, inputs=_static(program.inputs), outputs=_static(program.outputs))


def _static(specs: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
    return tuple(replace(spec, shape=vendor.static_shape(spec)) for spec in specs)


def _shapes(specs: Sequence[TensorSpec], batch: int) -> list[tuple[int, ...]]:
    return [
        (batch, *vendor.static_shape(spec)[1:]) if spec.has_dynamic_batch else vendor.static_shape(spec)
        for spec in specs
    ]


def _random(specs: Sequence[TensorSpec], batch: int) -> list[torch.Tensor]:
    import torch

    return [torch.from_numpy(array.copy()) for array in onnx_check.samples(specs, _shapes(specs, batch))[0]]


def _compare(program: Program, source: Call, made: Call, batch: int, title: str) -> None:
    """Check that `made` gives what `source` gives, on random inputs with `batch` samples.

    Raises:
        ConversionError: it does not, or one of the two fails.
    """
    import torch

    for row in onnx_check.samples(program.inputs, _shapes(program.inputs, batch)):
        wanted, gotten = (
            run_script(call, [torch.from_numpy(array.copy()) for array in row], program.path.name)
            for call in (source, made)
        )
        if len(wanted) != len(gotten) or len(wanted) != len(program.outputs):
            raise ConversionError(
                f"{title} gives {len(gotten)} outputs of {program.path.name}, not {len(program.outputs)}."
            )
        for spec, one, other in zip(program.outputs, wanted, gotten, strict=True):
            want, got = one.numpy(), other.numpy()
            if want.shape != got.shape or want.dtype != got.dtype:
                raise ConversionError(
                    f"{title} gives output {spec.name!r} of {program.path.name} as {got.dtype}{list(got.shape)}, not "
                    f"{want.dtype}{list(want.shape)}."
                )
            wide = want.astype(np.float64)
            largest = float(np.abs(wide[np.isfinite(wide)]).max(initial=0.0))
            limit = _ATOL_OF_MAX * largest if want.dtype.kind == "f" else 0.0
            rtol = _RTOL if want.dtype.kind == "f" else 0.0
            if not np.allclose(got.astype(np.float64), wide, rtol=rtol, atol=limit, equal_nan=True):
                error = float(np.nanmax(np.abs(got.astype(np.float64) - wide)))
                raise ConversionError(
                    f"{title} gives output {spec.name!r} of {program.path.name} with a difference of {error:.3g} "
                    f"(largest {largest:.3g}) on {batch} random samples."
                )
