"""TorchScript sources: an archive of torch.jit.save, whose input shapes the user gives."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgewright.backends.torchscript_lstm import calls_lstm, checked_states, has_fixed_state
from edgewright.backends.torchscript_session import load_script, run_script
from edgewright.core.errors import ConversionError, UsageError
from edgewright.core.files import sha256_of
from edgewright.core.program import Program
from edgewright.core.tensors import DTYPES, TensorSpec
from edgewright.sources.shapes import InputShape, parse_input_shapes
from edgewright.sources.torchscript_archive import write_safe_copy

if TYPE_CHECKING:
    import torch

SUFFIX = ".torchscript"
_SEED = 20240229
# Rows of one batch and of single samples differ by the order of sums alone.
_RTOL, _ATOL_OF_MAX = 1e-4, 1e-5


def read_torchscript(path: Path, *, spec: str, input_shapes: Sequence[str], workdir: Path) -> Program:
    """Return the Program of a TorchScript archive; what is read later is a checked copy of it in `workdir`.

    The module runs on random inputs of the given shapes, for its outputs' shapes. The batch (dimension 0 of every
    input) is dynamic when 3 samples give what each of them gives alone.

    Args:
        input_shapes: one text per input of forward, see `sources.shapes`.
    Raises:
        UsageError: no shapes, or others than forward takes.
        FormatMismatchError, IntegrityError: see `torchscript_archive`.
        ConversionError: the module does not run on these shapes, or gives something else than tensors.
    """
    if not input_shapes:
        raise UsageError(
            f"{spec} is TorchScript, which does not tell the shapes of its inputs. Give one for each, e.g. "
            "--input-shape 1x3x32x32 (batch first)."
        )
    digest = sha256_of(path)
    copy = workdir / f"{path.stem}.{digest[:12]}{SUFFIX}"
    aside = workdir / f".{copy.name}.part"
    try:
        write_safe_copy(path, aside)
        aside.replace(copy)
    finally:
        aside.unlink(missing_ok=True)
    module = load_script(copy)
    shapes = _in_order(parse_input_shapes(input_shapes), _names(module), spec)
    with checked_states(calls_lstm(module)):
        outputs, note = _outputs(module, shapes, spec)
    is_dynamic = not note
    return Program(
        path=copy,
        format="torchscript",
        inputs=tuple(
            _spec(name, shape.shape, shape.dtype, is_dynamic)
            for name, shape in zip(_names(module), shapes, strict=True)
        ),
        outputs=tuple(
            _spec(
                "output" if len(outputs) == 1 else f"output_{number}",
                tuple(value.shape),
                _dtype(value, spec),
                is_dynamic,
            )
            for number, value in enumerate(outputs)
        ),
        sha256=digest,
        origin=spec,
        origin_format="torchscript",
        history=(f"loaded from {path.name}",),
        notes=(note,) if note else (),
    )


def _names(module: torch.jit.ScriptModule) -> list[str]:
    """Return the names of forward's arguments; a trace leaves them as x.1, x.2."""
    taken: list[str] = []
    for argument in module._c._get_method("forward").schema.arguments[1:]:
        name = str(argument.name).split(".")[0] or "input"
        taken.append(name if name not in taken else f"{name}_{len(taken)}")
    return taken


def _in_order(given: Sequence[InputShape], names: Sequence[str], spec: str) -> list[InputShape]:
    if len(given) != len(names):
        raise UsageError(
            f"{spec} takes {len(names)} inputs ({', '.join(names)}), but {len(given)} shapes were given. "
            "Give --input-shape once for each."
        )
    if given[0].name is None:
        return list(given)
    by_name = {shape.name: shape for shape in given}
    unknown = sorted(str(name) for name in by_name if name not in names)
    if unknown:
        raise UsageError(f"{spec} has no input {', '.join(unknown)}; it takes {', '.join(names)}.")
    return [by_name[name] for name in names]


def _outputs(
    module: torch.jit.ScriptModule, shapes: Sequence[InputShape], spec: str
) -> tuple[list[torch.Tensor], str]:
    """Return the outputs for one call of the given shapes, and why the batch is static (empty where it is not)."""
    import torch

    generator = torch.Generator().manual_seed(_SEED)
    examples = [_random(shape, shape.shape, generator) for shape in shapes]
    outputs = run_script(module.forward, examples, spec)
    again = run_script(module.forward, examples, spec)
    if any(
        not torch.equal(one.nan_to_num(), other.nan_to_num())
        for one, other in zip(outputs, again, strict=True)
    ):
        raise ConversionError(
            f"{spec} gives other numbers when it runs again: it is random, or keeps a state. Save it after eval()."
        )
    return outputs, _why_static(module, shapes, outputs, generator, spec)


def _why_static(
    module: torch.jit.ScriptModule,
    shapes: Sequence[InputShape],
    outputs: Sequence[torch.Tensor],
    generator: torch.Generator,
    spec: str,
) -> str:
    import torch

    batches = {shape.shape[0] for shape in shapes}
    if len(batches) != 1 or any(not value.ndim or value.shape[0] not in batches for value in outputs):
        return "batch made static: inputs and outputs do not share their first dimension"
    batch = batches.pop()
    if has_fixed_state(module):
        return f"batch made static ({batch}): the first state of an LSTM layer is a constant"
    rows = [[_random(shape, (1, *shape.shape[1:]), generator) for shape in shapes] for _ in range(3)]
    try:
        single = [run_script(module.forward, row, spec) for row in rows]
        together = run_script(module.forward, [torch.cat(column) for column in zip(*rows, strict=True)], spec)
    except ConversionError:
        return f"batch made static ({batch}): the module runs on this batch alone"
    for number, got in enumerate(together):
        want = [results[number] for results in single]
        if any(value.ndim != got.ndim for value in want) or not _agree(torch.cat(want), got):
            return f"batch made static ({batch}): samples of one batch change each other"
    return ""


def _agree(want: torch.Tensor, got: torch.Tensor) -> bool:
    import torch

    if want.shape != got.shape or want.dtype != got.dtype:
        return False
    if not want.is_floating_point():
        return torch.equal(want, got)
    scale = float(want.abs().nan_to_num(0.0, 0.0, 0.0).max()) if want.numel() else 0.0
    return torch.allclose(want, got, rtol=_RTOL, atol=_ATOL_OF_MAX * scale + 1e-7, equal_nan=True)


def _random(shape: InputShape, size: Sequence[int], generator: torch.Generator) -> torch.Tensor:
    """Return normal values for a float input, 0 and 1 for an integer one (valid indices of any table)."""
    import torch

    dtype = getattr(torch, shape.dtype)
    if dtype.is_floating_point:
        return torch.randn(tuple(size), generator=generator).to(dtype)
    return torch.randint(0, 2, tuple(size), generator=generator).to(dtype)


def _spec(name: str, shape: tuple[int, ...], dtype: str, is_dynamic: bool) -> TensorSpec:
    known: tuple[int | None, ...] = (None, *shape[1:]) if is_dynamic else shape
    return TensorSpec(name=name, shape=known, dtype=dtype, layout="nchw" if len(shape) == 4 else None)


def _dtype(value: torch.Tensor, spec: str) -> str:
    dtype = str(value.dtype).removeprefix("torch.")
    if dtype not in DTYPES:
        raise ConversionError(f"{spec} gives {dtype}, which no runtime here takes. Cast it in the model.")
    return dtype
