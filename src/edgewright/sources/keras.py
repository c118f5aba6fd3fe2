"""Keras sources: the signature of a `.keras`, `.h5` or `.hdf5` file, without Keras and without running it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from edgewright.core.errors import FormatMismatchError, IntegrityError
from edgewright.core.files import sha256_of
from edgewright.core.program import Program
from edgewright.core.tensors import DTYPES, Layout, TensorSpec
from edgewright.sources.keras_config import KerasLayer, KerasModel, Shape, input_shape, parse_model
from edgewright.sources.keras_file import KerasFile, read_keras_file
from edgewright.sources.keras_safety import require_safe
from edgewright.sources.keras_shapes import trace
from edgewright.sources.saved_model import dynamic_notes, with_shapes

_FLOATS = {
    "float32": "float32",
    "float64": "float64",
    "float16": "float16",
    "mixed_float16": "float16",
}


def read_keras(
    path: Path, *, spec: str, input_shapes: Sequence[str] = (), is_trusted: bool = False
) -> tuple[Program, bool]:
    """Return the Program of a Keras file, and whether all its output shapes are known.

    Inputs are named by their InputLayer, outputs by the layer that gives them.

    Args:
        input_shapes: sizes for dynamic dimensions, see `sources.shapes`.
    Raises:
        UsageError: weights alone; code in the file, untrusted; a shape that does not fit.
        FormatMismatchError: a subclassed model, or strings as input.
        IntegrityError: damaged, or not safe to read.
    """
    file = read_keras_file(path)
    notes = require_safe(path, file.config, is_trusted=is_trusted)
    model = parse_model(file.config, path)
    layout = layout_of(model)
    inputs = with_shapes(_inputs(model, path, layout), input_shapes, path)
    _, shapes = trace(model, [spec.shape for spec in inputs])
    program = Program(
        path=path,
        format="keras",
        inputs=inputs,
        outputs=_outputs(model, shapes, layout),
        sha256=sha256_of(path),
        origin=spec,
        origin_format="keras",
        history=(f"loaded from {path.name} (Keras {file.version})",),
        notes=(*notes, *_part_notes(file), *dynamic_notes(inputs)),
        is_trusted=is_trusted,
    )
    return program, all(shape is not None for shape in shapes)


def _part_notes(file: KerasFile) -> tuple[str, ...]:
    return (f"written by Keras {file.version}: run and converted with tf-keras",) if file.is_legacy else ()


def layout_of(model: KerasModel) -> Layout:
    """Return the layout of rank-4 tensors: nchw where a layer says channels_first."""
    found: Layout = "nhwc"
    for layer in model.layers:
        if layer.model is not None:
            found = layout_of(layer.model)
        elif layer.config.get("data_format") == "channels_first":
            found = "nchw"
        if found == "nchw":
            break
    return found


def _inputs(model: KerasModel, path: Path, layout: Layout) -> tuple[TensorSpec, ...]:
    layers = model.by_name
    specs = []
    for reference in model.inputs:
        layer = layers.get(reference.layer)
        shape = None if layer is None else input_shape(layer)
        if layer is None or shape is None:
            raise IntegrityError(
                f"{path}: its input {reference.layer!r} has no shape. Build the model and save it again."
            )
        if layer.config.get("sparse") or layer.config.get("ragged"):
            raise FormatMismatchError(
                f"{path}: input {reference.layer!r} is sparse or ragged, which is not read. Use dense tensors."
            )
        specs.append(_spec(reference.layer, shape, _dtype(layer, path), layout))
    names = Counter(spec.name for spec in specs)
    if not specs or not model.outputs or len(names) != len(specs):
        raise IntegrityError(
            f"{path} has {len(specs)} inputs and {len(model.outputs)} outputs, or one name twice."
        )
    return tuple(specs)


def _dtype(layer: KerasLayer, path: Path) -> str:
    value = layer.config.get("dtype", "float32")
    if isinstance(value, dict):  # a policy of Keras 3
        config = value.get("config")
        value = config.get("name") if isinstance(config, dict) else None
    if value == "string" or value not in DTYPES:
        raise FormatMismatchError(
            f"{path}: input {layer.name!r} holds {str(value)[:40]}, which no runtime here takes. Save the model "
            "without its text preprocessing, with numbers as input."
        )
    return str(value)


def _outputs(model: KerasModel, shapes: Sequence[Shape | None], layout: Layout) -> tuple[TensorSpec, ...]:
    layers = model.by_name
    specs = []
    for reference, name, shape in zip(model.outputs, model.output_names, shapes, strict=True):
        layer = layers.get(reference.layer)
        value = None if layer is None else layer.config.get("dtype")
        if isinstance(value, dict):
            config = value.get("config")
            value = config.get("name") if isinstance(config, dict) else None
        specs.append(_spec(name, shape or (), _FLOATS.get(str(value), "float32"), layout))
    return tuple(specs)


def _spec(name: str, shape: Shape, dtype: str, layout: Layout) -> TensorSpec:
    return TensorSpec(name=name, shape=shape, dtype=dtype, layout=layout if len(shape) == 4 else None)
