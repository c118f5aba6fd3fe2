"""The `.tflite` that a device is given: quantized where it must be, and with integers at its ends.

A device is given int8, so conversions from and to float at the ends leave the graph; `microcontrollers.ends` does the
same with the emitter's graph, here the file itself is rewritten.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np

from edgewright.backends import litert_file, vendor
from edgewright.backends.litert import LiteRTBackend
from edgewright.core.contracts import Calibration
from edgewright.core.program import Program
from edgewright.core.target import Target
from edgewright.core.tensors import TensorSpec
from edgewright.sources.tflite_file import FlatModel, read_flatbuffer

_ENDS_NOTE = "the device takes and gives integers: quantize its inputs and dequantize its outputs"


@dataclass(frozen=True, kw_only=True)
class DeviceModel:
    """A model for a device.

    Attributes:
        path: the `.tflite`.
        inputs, outputs: as the source has them, with static shapes; float where the file has integers in their place.
        notes: what was done on the way, and how the integers at the ends are to be read.
    """

    path: Path
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    notes: tuple[str, ...]
    toolchain: Mapping[str, str]


def refuses(program: Program, target: Target, consumes: Sequence[str]) -> str | None:
    """Return why a device's LiteRT model cannot be made of `program`, or None; imports nothing."""
    if program.origin_format == "tflite" and program.format != "tflite":
        return "a .tflite is taken as it is: another way round would not change its operators"
    return vendor.refuses(program, target, consumes)


def lower(
    program: Program,
    target: Target,
    calibration: Calibration | None,
    folder: Path,
    *,
    is_rewritten: bool = True,
) -> DeviceModel:
    """Return the model of `program` for a device, written into `folder`.

    A `.tflite` that has the precision already is not run through LiteRT, which refuses some that devices take.

    Args:
        is_rewritten: False keeps the bytes of a `.tflite` in which nothing is to be changed, a dynamic batch included.
    Raises:
        ConversionError: LiteRT's converters or its runtime refuse the model.
        FormatMismatchError, IntegrityError: the `.tflite` cannot be read.
    """
    litert = LiteRTBackend()
    made = folder / "device.tflite"
    notes: tuple[str, ...] = ()
    if program.format == "tflite" and program.precision == target.precision:
        source, toolchain = program.path, vendor.versions(("ai-edge-litert",))
        inputs, outputs = _static(program.inputs), _static(program.outputs)
    else:
        plain = replace(target, runtime=litert.name, options=())
        lowered = litert.convert(program, plain, calibration, folder / litert.name)
        source, toolchain = lowered.path, dict(lowered.toolchain)
        inputs, outputs = lowered.inputs, lowered.outputs
        ends = set(litert_file.quantized_io(litert_file.read(source)))
        notes = tuple(note for note in lowered.notes if note not in ends)
    file = litert_file.read(source)
    stripped = strip(file, read_flatbuffer(source))
    if stripped or is_rewritten:
        litert_file.normalise(file)
        _clean_names(file)
        litert_file.write(file, made)
    else:
        made.write_bytes(source.read_bytes())
    notes += (_ENDS_NOTE,) if stripped else ()
    return DeviceModel(
        path=made,
        inputs=inputs,
        outputs=outputs,
        notes=(*notes, *litert_file.quantized_io(file)),
        toolchain=toolchain,
    )


def _clean_names(model: litert_file.Model) -> None:
    """Replace control characters in names: compilers write names into tables of their own, line by line."""
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            tensor.name = re.sub(rb"[\x00-\x1f\x7f]", b"_", tensor.name or b"")


def _static(specs: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
    return tuple(replace(spec, shape=vendor.static_shape(spec)) for spec in specs)


def strip(model: litert_file.Model, names: FlatModel) -> int:
    """Remove each QUANTIZE behind a float input and each DEQUANTIZE before a float output; return how many.

    The integer tensors take the names of the ends. A graph that would be empty stays as it is.

    Args:
        names: the same file, which tells the operators' names.
    """
    graph, operators = model.subgraphs[0], names.graphs[0].operators
    flat = names.graphs[0].tensors
    reads = Counter(index for operator in operators for index in operator.inputs)
    inputs, outputs = [int(i) for i in graph.inputs], [int(i) for i in graph.outputs]
    gone: set[int] = set()
    for position, operator in enumerate(operators):
        if len(operator.inputs) != 1 or len(operator.outputs) != 1:
            continue
        source, result = operator.inputs[0], operator.outputs[0]
        if (
            operator.name == "QUANTIZE"
            and inputs.count(source) == 1
            and flat[source].dtype == "float32"
            and reads[source] == 1
            and source not in outputs
        ):
            inputs[inputs.index(source)] = result
            gone.add(position)
        elif (
            operator.name == "DEQUANTIZE"
            and outputs.count(result) == 1
            and flat[result].dtype == "float32"
            and reads[result] == 0
            and flat[source].data_bytes == 0
            and source not in (*outputs, *inputs)
        ):
            outputs[outputs.index(result)] = source
            gone.add(position)
    if not gone or len(gone) == len(operators):
        return 0
    kept = [[litert_file.tensor_name(graph, int(i)) for i in side] for side in (graph.inputs, graph.outputs)]
    graph.operators = [operator for i, operator in enumerate(graph.operators) if i not in gone]
    for before, after in zip((*graph.inputs, *graph.outputs), (*inputs, *outputs), strict=True):
        if int(before) != after:
            graph.tensors[int(before)].name = (graph.tensors[int(before)].name or b"") + b"_float"
    graph.inputs = cast(Sequence[int], np.asarray(inputs, dtype=np.int32))
    graph.outputs = cast(Sequence[int], np.asarray(outputs, dtype=np.int32))
    litert_file.rename(model, *kept)
    return len(gone)
