"""What every wrapped toolchain needs: versions without an import, quiet vendor code, exported programs, samples."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgewright.core.contracts import Calibration, Support
from edgewright.core.errors import ConversionError, DataError, FormatMismatchError, first_line
from edgewright.core.program import Program
from edgewright.core.target import INTEGER_PRECISIONS, Precision, Quantizer, Target
from edgewright.core.tensors import Array, TensorSpec

if TYPE_CHECKING:
    from ai_edge_litert.interpreter import Interpreter
    from torch.export import ExportedProgram

# No runtime here has an int8 kernel that takes 4-bit weights and keeps both numbers and speed: LiteRT's INT4 tensors
# leave XNNPACK, where convolutions then took 4 times and linear layers 9 times as long, with other roundings.
LOW_BITS_NOTE = "4-bit weights (-7..7 per channel) stored in bytes: packed by .ewz"


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Return package -> version of those of `packages` that are installed, from their metadata alone."""
    found = {}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def support(packages: Sequence[str], *, extra: str) -> Support:
    """Return whether all of `packages` are installed; `extra` is the extra of Edgewright that brings them."""
    found = versions(packages)
    missing = [package for package in packages if package not in found]
    reason = f"{', '.join(missing)} not installed; run: pip install 'edgewright[{extra}]'" if missing else ""
    return Support(is_available=not missing, versions=found, reason=reason)


@contextmanager
def quiet() -> Iterator[None]:
    """Drop what vendor code says to its own developers: deprecations inside it, and its debugging advice."""
    with warnings.catch_warnings():
        for category in (DeprecationWarning, PendingDeprecationWarning, FutureWarning):
            warnings.simplefilter("ignore", category)
        warnings.filterwarnings("ignore", message=r".*experimental_preserve_all_tensors.*")
        warnings.filterwarnings("ignore", message=r".*training mode.*")
        yield


def load_exported(program: Program) -> ExportedProgram:
    """Return the torch program in the `.pt2` file of `program`; the operators of PT2E are known.

    Raises:
        FormatMismatchError: the file is not a program of torch.export.
    """
    return load_exported_file(program.path)


def load_exported_file(path: Path) -> ExportedProgram:
    """Return the torch program in the `.pt2` file at `path`, see `load_exported`."""
    import torch

    with quiet():
        import torch.ao.quantization.fx._decomposed  # registers quantize_per_tensor and its kin

        try:
            return torch.export.load(path)
        except Exception as err:  # a broken archive raises anything from BadZipFile to KeyError
            raise FormatMismatchError(
                f"{path} cannot be read as a program of torch.export: {first_line(err)}. "
                "Write it with torch.export.save of the same torch version."
            ) from err


def static_shape(spec: TensorSpec) -> tuple[int, ...]:
    """Return the shape with a dynamic batch made 1.

    Raises:
        ConversionError: another dimension is dynamic.
    """
    shape = [1 if axis == 0 and size is None else size for axis, size in enumerate(spec.shape)]
    known = [size for size in shape if size is not None]
    if len(known) != len(shape):
        raise ConversionError(
            f"input {spec} has a dynamic dimension besides the batch, but this runtime needs static shapes. "
            "Export the model with fixed sizes (--input-shape)."
        )
    return tuple(known)


def calibration_samples(program: Program, calibration: Calibration | None) -> list[list[Array]]:
    """Return the calibration samples as full inputs, in the order of `program.inputs`.

    Raises:
        ConversionError: there is no calibration.
        DataError: an input is missing, or its samples do not fit the signature.
    """
    if calibration is None:
        raise ConversionError(
            "w8a8 needs samples for the ranges of activations, but no calibration was given. "
            "Give representative samples with --calibration."
        )
    with np.load(calibration.path, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    columns = []
    for spec in program.inputs:
        if spec.name not in arrays:
            raise DataError(
                f"calibration {calibration.path} has {sorted(arrays)}, but no input {spec.name!r}."
            )
        columns.append([_sample(row, spec) for row in arrays[spec.name]])
    return [list(row) for row in zip(*columns, strict=True)]


def _sample(row: Array, spec: TensorSpec) -> Array:
    for full in (row, row[np.newaxis]):
        if full.ndim == len(spec.shape) and all(
            want is None or want == got for want, got in zip(spec.shape, full.shape, strict=True)
        ):
            return np.ascontiguousarray(full, dtype=spec.dtype)
    raise DataError(f"a calibration sample has shape {list(row.shape)}, but the model takes {spec}.")


def keeps_state(interpreter: Interpreter) -> bool:
    """Return True when a LiteRT interpreter holds variable tensors from one run to the next."""
    operators = {str(details["op_name"]) for details in interpreter._get_ops_details()}
    return any("SEQUENCE" in name or name in ("RNN", "LSTM", "SVDF") for name in operators)


def require_file(path: Path) -> None:
    """Check that a converter left a non-empty file at `path`."""
    if not path.is_file() or path.stat().st_size == 0:
        raise ConversionError(f"the converter reported success, but wrote nothing to {path}.")


def refuses(
    program: Program,
    target: Target,
    consumes: Sequence[str],
    *,
    quantizers: Sequence[Quantizer] = (Quantizer.PT2E, Quantizer.NATIVE),
) -> str | None:
    """Return why no toolchain here makes `target` of `program`, or None: format, device, layout, precision."""
    layouts = {spec.layout for spec in program.inputs if spec.layout is not None}
    if program.format not in consumes:
        return f"{target.runtime} reads {', '.join(consumes)}, but the program is {program.format}"
    if target.accelerator != ("cpu",):
        return f"{target.runtime} runs on the CPU in this version, not on {', '.join(target.accelerator)}"
    if target.layout is not None and layouts and layouts != {target.layout}:
        return f"the source's layout is {', '.join(sorted(layouts))}, and it is kept; {target.layout} is not made"
    if program.precision not in (Precision.FP32, target.precision):
        kept = program.precision
        return f"the source is already quantized ({kept}); only --precision {kept} keeps what it is"
    if target.quantizer is not None and target.quantizer not in quantizers:
        return f"{target.runtime} has no quantizer {target.quantizer}; use {' or '.join(quantizers)}"
    if target.quantizer is Quantizer.PT2E and program.format != "pt2":
        return f"PT2E quantizes PyTorch programs, but the program is {program.format}; use quantizer native"
    return refuses_low_bits(program, target)


def refuses_low_bits(program: Program, target: Target) -> str | None:
    """Return why w4a8 cannot be made of `program`, or None: PT2E alone makes it."""
    if target.precision is not Precision.W4A8 or program.precision == Precision.W4A8:
        return None
    if program.format == "pt2" and target.quantizer in (None, Quantizer.PT2E):
        return None
    who = target.quantizer or "its default"
    return f"w4a8 is made by PT2E of .pt2 programs alone; this is {program.format}, quantizer {who}"


def quantizer(program: Program, target: Target) -> Quantizer | None:
    """Return who quantizes: nobody for floats and quantized sources; weights alone always the runtime's own tool."""
    if target.precision not in (Precision.W8, *INTEGER_PRECISIONS) or program.precision != Precision.FP32:
        return None
    if target.precision is Precision.W8:
        return Quantizer.NATIVE
    return target.quantizer or (Quantizer.PT2E if program.format == "pt2" else Quantizer.NATIVE)
