"""Worker operations: read a model, describe a model."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from pathlib import Path

from edgewright.core.errors import UsageError
from edgewright.core.program import Program
from edgewright.core.tensors import Layout


def read(arguments: dict[str, object]) -> dict[str, object]:
    """Return {"program": Program, "is_complete": whether the shapes of all outputs are known}.

    Args:
        arguments: spec, format (factory, pickle, or one of `core.program.FORMATS`), workdir, layout, and path, or for
            a factory weights, input_shapes and import_path; input_shapes, signature, trust and to_describe (see
            `load`) for TensorFlow's formats.
    """
    if arguments["format"] in ("keras", "saved_model", "graph_def"):
        program, is_complete = _read_tensorflow(arguments)
        return {"program": program.to_json(), "is_complete": is_complete}
    return {"program": _read(arguments).to_json(), "is_complete": True}


def _read_tensorflow(arguments: dict[str, object]) -> tuple[Program, bool]:
    spec, path, model_format = str(arguments["spec"]), Path(str(arguments["path"])), arguments["format"]
    input_shapes = _texts(arguments.get("input_shapes") or [])
    is_trusted = arguments.get("trust") is True or arguments.get("to_describe") is True
    if model_format == "keras":
        from edgewright.sources.keras import read_keras

        program, is_complete = read_keras(path, spec=spec, input_shapes=input_shapes, is_trusted=is_trusted)
    elif model_format == "saved_model":
        from edgewright.sources.saved_model import read_saved_model

        signature = arguments.get("signature")
        program = read_saved_model(
            path if path.is_dir() else path.parent,
            spec=spec,
            signature=None if signature is None else str(signature),
            input_shapes=input_shapes,
            is_trusted=is_trusted,
        )
        is_complete = not input_shapes
    else:
        from edgewright.sources.saved_model import read_frozen_graph

        program = read_frozen_graph(path, spec=spec, input_shapes=input_shapes, is_trusted=is_trusted)
        is_complete = False
    own: Layout = next((one.layout for one in program.inputs if one.layout is not None), "nhwc")
    _refuse_layout(spec, str(model_format), own=own, wanted=_layout(arguments.get("layout")))
    if not is_complete and arguments.get("to_describe") is True:
        note = "the shapes of its outputs are not all in the file; a build asks TensorFlow for them"
        program = replace(program, notes=(*program.notes, note))
    return replace(program, is_trusted=arguments.get("trust") is True), is_complete


def _read(arguments: dict[str, object]) -> Program:
    spec, model_format = str(arguments["spec"]), arguments["format"]
    layout = _layout(arguments.get("layout"))
    if model_format == "factory":
        from edgewright.sources.torch import read_factory

        weights = arguments.get("weights")
        return read_factory(
            spec,
            weights=None if weights is None else Path(str(weights)),
            input_shapes=_texts(arguments["input_shapes"]),
            import_path=_texts(arguments["import_path"]),
            workdir=Path(str(arguments["workdir"])),
            layout=layout,
        )
    path = Path(str(arguments["path"]))
    if model_format == "pickle":
        from edgewright.sources.torch_weights import refuse_pickle

        raise refuse_pickle(path)
    if model_format == "pt2":
        from edgewright.sources.torch import read_pt2

        return read_pt2(path, spec=spec, workdir=Path(str(arguments["workdir"])), layout=layout)
    if model_format == "torchscript":
        from edgewright.sources.torchscript import read_torchscript

        _refuse_layout(spec, "torchscript", own="nchw", wanted=layout)
        shapes = _texts(arguments.get("input_shapes") or [])
        return read_torchscript(path, spec=spec, input_shapes=shapes, workdir=Path(str(arguments["workdir"])))
    if model_format == "onnx":
        from edgewright.sources.onnx import read_onnx

        _refuse_layout(spec, "onnx", own="nchw", wanted=layout)
        program = read_onnx(path, spec=spec)
        shapes = _texts(arguments.get("input_shapes") or [])
        if not shapes:
            return program
        from edgewright.sources.onnx_shapes import fix_onnx_shapes

        return fix_onnx_shapes(program, shapes, Path(str(arguments["workdir"])))
    from edgewright.sources.tflite import read_tflite

    _refuse_layout(spec, "tflite", own="nhwc", wanted=layout)
    return read_tflite(path, spec=spec)


def inspect(arguments: dict[str, object]) -> dict[str, object]:
    """Return {"inspection": Inspection} of {"program": Program}."""
    from edgewright.sources.inspection import inspect_program

    record = arguments["program"]
    assert isinstance(record, dict)
    return {"inspection": inspect_program(Program.from_json(record)).to_json()}


def inspect_file(arguments: dict[str, object]) -> dict[str, object]:
    """Return {"inspection": Inspection} of an artifact.

    Args:
        arguments: path, and inspector: "module:function", one of `load.ARTIFACT_INSPECTORS`.
    """
    module, _, function = str(arguments["inspector"]).partition(":")
    found = getattr(import_module(module), function)(Path(str(arguments["path"])))
    return {"inspection": found.to_json()}


def _refuse_layout(spec: str, model_format: str, *, own: Layout, wanted: Layout | None) -> None:
    if wanted not in (None, own):
        raise UsageError(
            f"layout {wanted} was asked for, but {spec} is {model_format}, whose rank-4 tensors are {own} and are "
            f"kept. Leave --layout out, or start from the PyTorch model."
        )


def _layout(value: object) -> Layout | None:
    if value in (None, "nchw", "nhwc"):
        return value
    raise UsageError(f"layout is {value!r}; expected nchw or nhwc.")


def _texts(values: object) -> list[str]:
    assert isinstance(values, list)
    return [str(value) for value in values]
