"""PT2E: quantize a PyTorch program once, for every runtime to lower."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgewright.backends.vendor import calibration_samples, load_exported, quiet
from edgewright.compress.int8_quantizer import (
    LayerScheme,
    count_weighted,
    layer_names,
    make_quantizer,
    schemes,
)
from edgewright.core.contracts import Calibration
from edgewright.core.errors import ConversionError, FormatMismatchError, UnknownNameError, first_line
from edgewright.core.files import write_aside
from edgewright.core.program import Program
from edgewright.core.target import INTEGER_PRECISIONS, Precision
from edgewright.core.tensors import Array, TensorSpec
from edgewright.sources.torch_digest import digest_exported

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram
    from torch.fx import GraphModule

    from edgewright.compress.passes import Batch

NAME = "pt2e"
CALIBRATION_BATCH = 32
MAX_BATCH = 1024


def quantize(arguments: dict[str, object]) -> dict[str, object]:
    """Worker operation: `quantize_pt2e` on JSON.

    Args:
        arguments: {"program": Program, "precision": text, "calibration": Calibration or None,
            "workdir": folder}.
    Returns:
        {"program": Program}
    """
    program, given = arguments["program"], arguments.get("calibration")
    assert isinstance(program, dict)
    assert given is None or isinstance(given, dict)
    quantized = quantize_pt2e(
        Program.from_json(program),
        precision=Precision.parse(str(arguments["precision"])),
        calibration=None if given is None else Calibration.from_json(given),
        workdir=Path(str(arguments["workdir"])),
    )
    return {"program": quantized.to_json()}


def quantize_pt2e(
    program: Program, *, precision: Precision, calibration: Calibration | None, workdir: Path
) -> Program:
    """Return `program` with int8 weights and activations, written as `quantized.pt2` into `workdir`.

    Weights are kept as float with a quantize and a dequantize after them (`fold_quantize=False`), the one spelling
    that LiteRT, ONNX Runtime and OpenVINO lower alike; a dynamic batch stays dynamic. The same program and
    calibration give the same digest.

    Raises:
        FormatMismatchError: not a float PyTorch program, or another precision than w8a8 and w4a8.
        ConversionError: no calibration, or no layer that can be quantized.
        DataError: the calibration does not fit the inputs.
    """
    if program.format != "pt2" or program.precision != Precision.FP32:
        raise FormatMismatchError(
            f"PT2E quantizes float PyTorch programs, but {program.path.name} is {program.format} in "
            f"{program.precision}. Use the runtime's own quantizer (--quantizer native)."
        )
    if precision not in INTEGER_PRECISIONS:
        raise FormatMismatchError(
            f"PT2E makes {' and '.join(INTEGER_PRECISIONS)}, not {precision}. "
            "Use the runtime's own quantizer (--quantizer native)."
        )
    samples = calibration_samples(program, calibration)
    assert calibration is not None
    with quiet():
        batches = list(_batches(program.inputs, samples))
        source = load_exported(program)
        low = LayerScheme.W4A8 if precision is Precision.W4A8 else None
        layers = {
            name: low
            for name, is_weighted in layer_names(source.module(check_guards=False)).items()
            if low and is_weighted
        }
        exported = quantize_exported(source, program.inputs, batches, origin=program.origin, layers=layers)
        path = workdir / "quantized.pt2"
        with write_aside(path) as aside, aside.open("wb") as stream:
            import torch

            torch.export.save(exported, stream)
        return program.after(
            f"quantize({NAME}, {precision}, {calibration.count} samples)",
            path=path,
            sha256=digest_exported(exported),
            precision=str(precision),
        )


def quantize_exported(
    exported: ExportedProgram,
    inputs: Sequence[TensorSpec],
    batches: Sequence[Batch],
    *,
    origin: str,
    layers: Mapping[str, LayerScheme] | None = None,
) -> ExportedProgram:
    """Return `exported`, a float program, with int8 weights and activations, see `quantize_pt2e`.

    Args:
        inputs: of the program; a size that is None stays dynamic.
        batches: real inputs, for the ranges of activations.
        origin: what the user calls the model.
        layers: name -> precision of the layers that are not w8a8.
    Raises:
        UnknownNameError: `layers` names a layer that is not there, or cannot be quantized.
        ConversionError: no layer that can be quantized, or PT2E fails.
    """
    import torch
    from torchao.quantization.pt2e import move_exported_model_to_eval
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    module: GraphModule = exported.module(check_guards=False)
    known = layer_names(module)
    for name in layers or ():
        if name not in known:
            raise UnknownNameError.of("layer", name, known)
    # Sums in another order would give other ranges, and so another digest, on another number of cores.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        prepared: GraphModule = prepare_pt2e(module, make_quantizer(schemes(), layers))
        if count_weighted(prepared) == 0:
            raise ConversionError(
                f"{origin} has no convolution or linear layer on float32 that PT2E can quantize. Use w8 or fp16."
            )
        with torch.no_grad():
            for batch in batches:
                prepared(*batch)
        converted = convert_pt2e(prepared, fold_quantize=False)
        move_exported_model_to_eval(converted)
        return torch.export.export(
            converted, _example(inputs, batches[0]), dynamic_shapes=dynamic_shapes(inputs)
        )
    except ConversionError:
        raise
    except Exception as err:
        raise ConversionError(
            f"PT2E failed on {origin}: {type(err).__name__}: {first_line(err)}. "
            "Use the runtime's own quantizer (--quantizer native)."
        ) from err
    finally:
        torch.set_num_threads(threads)


def _batches(specs: tuple[TensorSpec, ...], samples: list[list[Array]]) -> Iterator[tuple[torch.Tensor, ...]]:
    """Yield all samples as inputs, many at a time where every input's batch is dynamic."""
    import numpy as np
    import torch

    size = CALIBRATION_BATCH if all(spec.has_dynamic_batch for spec in specs) else 1
    for start in range(0, len(samples), size):
        columns = zip(*samples[start : start + size], strict=True)
        yield tuple(torch.from_numpy(np.concatenate(column)) for column in columns)


def _example(specs: Sequence[TensorSpec], batch: Batch) -> Batch:
    """Return inputs for the export; a dynamic batch must not be 1, which would be taken as a constant."""
    import torch

    return tuple(
        torch.cat([tensor[:1], tensor[:1]]) if spec.has_dynamic_batch else tensor
        for spec, tensor in zip(specs, batch, strict=True)
    )


def dynamic_shapes(specs: Sequence[TensorSpec]) -> tuple[dict[int, object], ...] | None:
    import torch

    if all(spec.is_static for spec in specs):
        return None
    batch = torch.export.Dim("batch", min=1, max=MAX_BATCH)
    return tuple(
        {
            axis: batch if axis == 0 else torch.export.Dim.AUTO
            for axis, size in enumerate(spec.shape)
            if size is None
        }
        for spec in specs
    )
