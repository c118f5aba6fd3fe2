"""What lies in the custom operator of a model that was compiled for the Coral Edge TPU.

The operator's options end a flatbuffer "Package" with executables, see libedgetpu, `executable/executable.fbs`. Only
counts and sizes are read; every offset is checked.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgewright.backends.mnn_file import Table
from edgewright.core.errors import IntegrityError
from edgewright.sources.flat_tables import damage_of
from edgewright.sources.tflite_file import read_flatbuffer

OPERATOR = "edgetpu-custom-op"
_IDENTIFIER = b"DWN1"
_PREFIX_BYTES = 64  # the flexbuffer before the package: a few keys and a length
_MAX_EXECUTABLES = 64
# Fields of Package, MultiExecutable and Executable.
_MIN_RUNTIME, _MULTI_EXECUTABLE = 0, 1
_EXECUTABLES = 0
_SCRATCH, _PARAMETERS, _CHIP, _TYPE = 4, 6, 10, 13
_TYPES = {0: "stand-alone", 1: "parameter-caching", 2: "execution-only"}


@dataclass(frozen=True, kw_only=True)
class EdgeTpuPackage:
    """One compiled operator.

    Attributes:
        min_runtime_version: the oldest runtime that runs it.
        parameter_bytes: sent to the chip, once where they are cached and else for each inference.
        scratch_bytes: on the host for one inference.
        executables: kind -> how many.
    """

    min_runtime_version: int
    parameter_bytes: int
    scratch_bytes: int
    chip: str
    executables: dict[str, int]

    def __str__(self) -> str:
        kinds = ", ".join(f"{count} {kind}" for kind, count in self.executables.items())
        return (
            f"chip {self.chip or 'unknown'}, runtime {self.min_runtime_version} or newer, "
            f"{self.parameter_bytes:,} bytes of parameters, executables: {kinds}"
        )


def edgetpu_notes(path: Path) -> tuple[str, ...]:
    """Return what a compiled `.tflite` says: each part for the Edge TPU, and what stays on the CPU.

    Raises:
        FormatMismatchError, IntegrityError: see `litert_file.read` and `read_package`.
    """
    from edgewright.backends import litert_file

    model, flat = litert_file.read(path), read_flatbuffer(path)
    notes, left = [], Counter[str]()
    for graph, operators in zip(model.subgraphs, flat.graphs, strict=True):
        for operator, known in zip(graph.operators, operators.operators, strict=True):
            if known.name != OPERATOR:
                left[known.name] += 1
                continue
            options = getattr(operator, "customOptions", None)
            content = b"" if options is None else np.asarray(options, dtype=np.uint8).tobytes()
            package = read_package(content, path)
            notes.append(f"compiled for the Edge TPU: {package}")
    kinds = ", ".join(f"{count} {name}" for name, count in left.most_common())
    notes.append(f"on the CPU: {kinds}" if kinds else "no operator stays on the CPU")
    return tuple(notes)


def read_package(options: bytes, path: Path) -> EdgeTpuPackage:
    """Return what the custom options of one operator hold.

    Args:
        path: of the model, for messages.
    Raises:
        IntegrityError: there is no package in them, or an offset in it leads outside.
    """
    place = options[:_PREFIX_BYTES].find(_IDENTIFIER) - 4
    length = int.from_bytes(options[place - 4 : place], "little") if place >= 4 else 0
    if place < 4 or not 8 <= length <= len(options) - place:
        raise IntegrityError(
            f"{path}: operator {OPERATOR} holds no package of the Edge TPU. Compile it again."
        )
    with damage_of(path):
        package = _root(memoryview(options)[place : place + length])
        inner = _bytes(package, _MULTI_EXECUTABLE)
        executables = _root(inner).tables(_EXECUTABLES)
        if not 1 <= len(executables) <= _MAX_EXECUTABLES:
            raise IntegrityError(f"the .mnn file has {len(executables)} executables. Compile it again.")
        kinds: Counter[str] = Counter()
        parameters = scratch = 0
        chip = ""
        for entry in executables:
            # A string of the schema: its length, then the bytes of another flatbuffer.
            start = entry.position + 4
            size = int.from_bytes(entry.buffer[entry.position : start], "little")
            if start + size > len(entry.buffer):
                raise IntegrityError(
                    "the .mnn file is damaged: an executable ends outside. Compile it again."
                )
            executable = _root(entry.buffer[start : start + size])
            kinds[_TYPES.get(executable.integer(_TYPE, form="<h"), "unknown")] += 1
            parameters += executable.length(_PARAMETERS, 1)
            scratch = max(scratch, executable.integer(_SCRATCH))
            chip = chip or executable.text(_CHIP)[:32]
        return EdgeTpuPackage(
            min_runtime_version=package.integer(_MIN_RUNTIME),
            parameter_bytes=parameters,
            scratch_bytes=scratch,
            chip=chip,
            executables=dict(kinds),
        )


def _bytes(table: Table, number: int) -> memoryview:
    start, count = table.text_at(number)
    return table.buffer[start : start + count]


def _root(buffer: memoryview) -> Table:
    if len(buffer) < 8:
        raise IntegrityError(f"the .mnn file is damaged: a buffer of {len(buffer)} bytes. Compile it again.")
    root = Table(buffer, int.from_bytes(buffer[:4], "little"))
    root.integer(0)  # the table itself must lie inside
    return root
