"""Layers of a Keras file, from its configuration and the shapes of its weights."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator

from edgewright.core.program import Program
from edgewright.sources.inspection import Layer
from edgewright.sources.keras_config import KerasModel, parse_model
from edgewright.sources.keras_file import read_keras_file
from edgewright.sources.keras_shapes import trace

_FOR_TRAINING = ("optimizer", "compile_metrics", "metrics")
_FLOATS = ("float", "bfloat", "int8")


def keras_layers(program: Program) -> tuple[list[Layer], int]:
    """Return the calls of the layers in an order in which they run, and the number of parameters.

    A layer that is called several times is listed as often; its parameters stand with its first call. Weights that
    no layer's name claims count in the total alone.
    """
    file = read_keras_file(program.path)
    model = parse_model(file.config, program.path)
    names = set(_names(model))
    owned: Counter[str] = Counter()
    for weight in file.weights:
        # What the optimizer keeps for training, and the counters of random layers, are no parameters.
        if weight.path.startswith(_FOR_TRAINING) or not weight.dtype.startswith(_FLOATS):
            continue
        count = math.prod(weight.shape)
        owned[next((owner for owner in weight.owners if owner in names), "")] += count
    total = sum(owned.values())
    traced, _ = trace(model, [spec.shape for spec in program.inputs])
    layers = [
        Layer(
            name=call.layer.name,
            operator=call.layer.class_name,
            output_shape=(call.outputs[0] or ()) if call.outputs else (),
            parameters=owned.pop(call.layer.name, 0),
            macs=call.macs,
        )
        for call in traced
    ]
    return layers, total


def _names(model: KerasModel) -> Iterator[str]:
    for layer in model.layers:
        if layer.model is not None:
            yield from _names(layer.model)
        else:
            yield layer.name
