"""The parent's side of reading a model: cheap checks, then the reading in a worker process."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgewright.core.artifact import PACKAGE_SUFFIX
from edgewright.core.errors import UnavailableError, UsageError
from edgewright.core.files import require_model_file
from edgewright.core.program import Program
from edgewright.core.tensors import Layout
from edgewright.sources.detect import detect_format, is_factory
from edgewright.sources.inspection import Inspection
from edgewright.sources.shapes import parse_input_shapes
from edgewright.workers.pool import Limits, call_once

if TYPE_CHECKING:
    import torch

_LIMITS = Limits(timeout_s=600.0)
# Reading a Keras file takes a second; the HDF5 library loops without end over some damaged heaps (found by mutation).
_HDF5_LIMITS = Limits(timeout_s=120.0)
# Artifacts that are no source: what describes them without running them, by suffix.
ARTIFACT_INSPECTORS = {
    ".c": "edgewright.sources.inspect_c:inspect_c",
    ".cc": "edgewright.sources.inspect_tflm:inspect_tflm",
    ".mlpackage": "edgewright.sources.inspect_coreml:inspect_coreml",
    ".xml": "edgewright.sources.inspect_openvino:inspect_openvino",
    ".param": "edgewright.sources.inspect_ncnn:inspect_ncnn",
    ".mnn": "edgewright.sources.inspect_mnn:inspect_mnn",
    ".engine": "edgewright.sources.inspect_tensorrt:inspect_tensorrt",
    ".ptl": "edgewright.sources.inspect_torchscript:inspect_ptl",
    ".pte": "edgewright.sources.inspect_executorch:inspect_executorch",
    ".ort": "edgewright.sources.inspect_ort:inspect_ort",
    ".plan": "edgewright.sources.inspect_tensorrt:inspect_tensorrt",
}
_TORCHSCRIPT_INSPECTOR = "edgewright.sources.inspect_torchscript:inspect_torchscript"
# Formats whose files leave sizes open that the user may give.
_TAKE_SHAPES = ("onnx", "torchscript", "keras", "saved_model", "graph_def")


def load(
    spec: str,
    *,
    workdir: Path,
    weights: Path | None = None,
    input_shapes: Sequence[str] | None = None,
    layout: Layout | None = None,
    signature: str | None = None,
    trust: bool = False,
    to_describe: bool = False,
) -> Program:
    """Return the model that `spec` names, read in a worker process.

    Args:
        spec: a `.pt2`, `.onnx`, `.tflite`, `.keras`, `.h5` or `.pb` file, a SavedModel's folder, or
            `package.module:factory`.
        workdir: folder for what has to be written (an exported `.pt2`).
        weights: for a factory: .safetensors, or a state dict in .pt/.pth/.th.
        input_shapes: for a factory, and for the dynamic dimensions of TensorFlow's files: see `sources.shapes`.
        layout: the layout of rank-4 inputs and outputs; only a PyTorch source can change its own.
        signature: of a SavedModel with several.
        trust: code inside the file (a Lambda layer, an operator that runs Python) may run, in a worker.
        to_describe: the program is for `inspect` alone: code in the file is noted, not refused, and nothing is run
            for shapes that a file does not tell.
    Raises:
        UsageError, FormatMismatchError: `spec` or an option cannot be used as given; or code in the file, untrusted.
        UnavailableError: a format that this version does not read, or a toolchain that it needs.
        IntegrityError: the file's structure is broken or not safe to read.
        ConversionError: PyTorch could not export the module, or the export does not agree with it.
    """
    arguments: dict[str, object] = {"spec": spec, "workdir": str(workdir), "layout": layout}
    if is_factory(spec):
        if not input_shapes:
            raise UsageError(
                f"factory {spec!r} needs the shape of its inputs, e.g. --input-shape 1x3x32x32 (batch first)."
            )
        parse_input_shapes(input_shapes)
        if weights is not None:
            _check_weights(weights)
        arguments |= {
            "format": "factory",
            "weights": None if weights is None else str(weights.resolve()),
            "input_shapes": list(input_shapes),
            "import_path": [str(Path.cwd()), *(entry for entry in sys.path if entry)],
        }
    else:
        path = Path(spec)
        model_format = detect_format(path)
        if weights is not None:
            raise UsageError(
                f"--weights belongs to a package.module:factory, but the model is {spec!r}. "
                "Leave it out, or give the factory."
            )
        if input_shapes and model_format not in _TAKE_SHAPES:
            raise UsageError(
                f"--input-shape is for {', '.join(_TAKE_SHAPES)} and factories, but {spec!r} is {model_format}, "
                "whose sizes are its own. Leave it out."
            )
        if signature is not None and model_format != "saved_model":
            raise UsageError(
                f"--signature belongs to a SavedModel, but {spec!r} is {model_format}. Leave it out."
            )
        parse_input_shapes(input_shapes or ())
        arguments |= {
            "format": model_format,
            "path": str(path.resolve()),
            "input_shapes": list(input_shapes or ()),
            "signature": signature,
            "trust": trust,
            "to_describe": to_describe,
        }
    workdir.mkdir(parents=True, exist_ok=True)
    limits = _HDF5_LIMITS if arguments["format"] == "keras" else _LIMITS
    reply = call_once("edgewright.sources.operations:read", arguments, limits=limits)
    record = reply["program"]
    assert isinstance(record, dict)
    if reply.get("is_complete") is False and not to_describe:
        record = _completed(record, spec)
    return Program.from_json(record)


def _completed(record: dict[str, object], spec: str) -> dict[str, object]:
    """Return the program with the shapes of its outputs, which only TensorFlow can tell.

    Raises:
        UnavailableError: TensorFlow is not installed.
    """
    try:
        reply = call_once(
            "edgewright.backends.tensorflow_session:complete",
            {"program": record},
            limits=_LIMITS,
            environment="tensorflow",
        )
    except UnavailableError as err:
        raise UnavailableError(
            f"{spec} does not tell the shapes of its outputs, and TensorFlow does: {err}"
        ) from err
    made = reply["program"]
    assert isinstance(made, dict)
    return made


def load_module(
    module: torch.nn.Module,
    example_inputs: Sequence[torch.Tensor] | torch.Tensor,
    *,
    workdir: Path,
    layout: Layout | None = None,
) -> Program:
    """Return the Program of a live module, exported in this process; its training mode is restored.

    Args:
        module: any torch.nn.Module whose forward takes tensors by position.
        example_inputs: the tensors of one call, batch first.
        workdir: folder for the exported `.pt2`.
    Raises:
        ConversionError: the module cannot be exported, or the export does not agree with it.
    """
    # The module lives in this process and cannot cross to a worker, so torch is loaded here already.
    from edgewright.sources.torch_export import export_module

    workdir.mkdir(parents=True, exist_ok=True)
    examples = (example_inputs,) if not isinstance(example_inputs, (list, tuple)) else tuple(example_inputs)
    return export_module(module, examples, workdir=workdir, origin=type(module).__name__, layout=layout)


def inspect(program: Program) -> Inspection:
    """Return the description of `program` (signature, parameters, MACs, operators, layers), made in a worker.

    Raises:
        IntegrityError: the file's structure is broken.
    """
    reply = call_once("edgewright.sources.operations:inspect", {"program": program.to_json()}, limits=_LIMITS)
    record = reply["inspection"]
    assert isinstance(record, dict)
    return Inspection.from_json(record)


def inspector_of(path: Path, *, has_shapes: bool = False) -> str | None:
    """Return what describes the file at `path` as it is ("module:function"), or None where `load` must read it.

    Args:
        has_shapes: the user gave the shapes of its inputs, with which a TorchScript archive is described as a source.
    Raises:
        UsageError, FormatMismatchError, UnavailableError: no model file that is read here.
    """
    inspector = ARTIFACT_INSPECTORS.get(path.suffix.lower())
    if inspector is None and not has_shapes and detect_format(path) == "torchscript":
        return _TORCHSCRIPT_INSPECTOR
    return inspector


def inspect_artifact(path: Path) -> Inspection:
    """Return the description of a model file: a source, or an artifact of a suffix in ARTIFACT_INSPECTORS.

    Raises:
        UsageError, FormatMismatchError, UnavailableError: no model file that is read here.
        IntegrityError: the file's structure is broken.
    """
    inspector = inspector_of(path)
    if inspector is None:
        with tempfile.TemporaryDirectory(prefix="edgewright-") as workdir:
            return inspect(load(str(path), workdir=Path(workdir), to_describe=True))
    if not (path.is_dir() and path.suffix == PACKAGE_SUFFIX):
        require_model_file(path)
    arguments = {"path": str(path.resolve()), "inspector": inspector}
    record = call_once("edgewright.sources.operations:inspect_file", arguments, limits=_LIMITS)["inspection"]
    assert isinstance(record, dict)
    return Inspection.from_json(record)


def _check_weights(path: Path) -> None:
    require_model_file(path)
    known = (".safetensors", ".pt", ".pth", ".th", ".bin", ".ckpt")
    if path.suffix.lower() not in known:
        raise UsageError(
            f"weights file {path} has suffix {path.suffix!r}; expected one of {', '.join(known)}."
        )
