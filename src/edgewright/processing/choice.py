"""Which specification a model has: one that is given, a preset's, the file beside it, or what its metadata says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from edgewright.core.errors import FormatMismatchError, UnknownNameError, UsageError
from edgewright.processing import presets
from edgewright.processing.presets import Quantization, Subject
from edgewright.processing.signature import Signature
from edgewright.processing.specification import (
    PROCESSING_NAME,
    Flow,
    Specification,
    read_specification,
)
from edgewright.workers.pool import call_once

_LITERT_SUFFIXES = (".tflite", ".lite")


def choose(processing: str, models: Mapping[str, Path], signatures: Mapping[str, Signature]) -> Specification:
    """Return the specification for the models at `models`.

    Args:
        processing: the name of a preset, or the path of a specification; empty takes what a model's metadata says.
        models: name -> file; "" for the only one.
    Raises:
        UsageError: there is none, or it cannot be read.
    """
    if processing and processing not in presets.names():
        return read_named(processing)
    subjects = {
        name: Subject(path=path, signature=signatures[name], quantization=read_quantization(path))
        for name, path in models.items()
    }
    if processing:
        return presets.make(processing, subjects)
    from edgewright.processing.metadata import infer

    found = infer(next(iter(subjects.values()))) if len(subjects) == 1 else None
    if found is None:
        fitting = presets.fitting(subjects)
        choices = (
            f"these take its tensors: {', '.join(fitting)}" if fitting else "none of a task takes its tensors"
        )
        raise UsageError(
            f"{next(iter(models.values()))} says nothing of its processing: no {PROCESSING_NAME} beside it, no "
            f"metadata inside. Give a specification or a preset with --processing; {choices}. 'tensors' hands "
            "numbers over as they are."
        )
    return found


def read_quantization(path: Path) -> dict[str, Quantization]:
    """Return the parameters of the integer inputs and outputs of the model at `path`, where its format has them."""
    if path.suffix.lower() not in _LITERT_SUFFIXES:
        return {}
    ends = call_once("edgewright.processing.operations:quantization", {"path": str(path.resolve())})["ends"]
    assert isinstance(ends, dict)
    return {str(name): Quantization(scale=float(s), zero_point=int(z)) for name, (s, z) in ends.items()}


def rebind(specification: Specification, old: Signature, new: Signature) -> Specification:
    """Return the specification of one model for its copy in another format: tensors correspond by position.

    Raises:
        FormatMismatchError: the signatures differ in their number of tensors, or the specification has several models.
    """
    if specification.models:
        raise FormatMismatchError("a specification of several models is not moved to one artifact.")
    names: dict[str, str] = {}
    for have, want in ((old.inputs, new.inputs), (old.outputs, new.outputs)):
        if len(have) != len(want):
            raise FormatMismatchError(f"a model with {len(have)} tensors is not one with {len(want)}.")
        names |= {a.name: b.name for a, b in zip(have, want, strict=True)}
    own = {row.name for row in specification.inputs} | {flow.name for flow in specification.values}

    def source(name: str) -> str:
        return name if name in own else names.get(name, name)

    def moved(flow: Flow) -> tuple[str, ...]:
        return tuple(source(name) for name in flow.sources)

    return replace(
        specification,
        values=tuple(replace(flow, sources=moved(flow)) for flow in specification.values),
        tensors=tuple(
            replace(flow, name=names.get(flow.name, flow.name), sources=moved(flow))
            for flow in specification.tensors
        ),
        constants=tuple(
            replace(row, tensor=names.get(row.tensor, row.tensor)) for row in specification.constants
        ),
        states=tuple(
            replace(row, tensor=names.get(row.tensor, row.tensor), source=source(row.source))
            for row in specification.states
        ),
        results=tuple(replace(flow, sources=moved(flow)) for flow in specification.results),
    )


def read_named(processing: str) -> Specification:
    """Return the specification of the file or folder at `processing`.

    Raises:
        UnknownNameError: a word that is no file, and so was meant as a preset; says the nearest.
        UsageError: the file cannot be read, or is none.
    """
    path = Path(processing)
    if not path.exists() and path.name == processing and path.suffix != ".toml":
        raise UnknownNameError.of("preset or file", processing, presets.names())
    return read_specification(path)
