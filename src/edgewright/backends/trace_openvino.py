"""The layers of an OpenVINO topology, each added to the outputs of the model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from edgewright.backends import trace
from edgewright.backends.vendor import quiet
from edgewright.core.artifact import Artifact
from edgewright.core.contracts import TracedLayer
from edgewright.core.errors import ConversionError, first_line
from edgewright.core.tensors import Arrays

_FLOAT_BYTES = 4
# Names that OpenVINO counts up while it converts: they say nothing about which layer this is.
_GENERATED = re.compile(r"(?:[A-Z][A-Za-z0-9]*_)?\d+")
_NOT_OPERATORS = frozenset({"Parameter", "Constant", "Result"})
OPERATORS = trace.Operators(
    weighted=frozenset(
        {
            "Convolution",
            "GroupConvolution",
            "ConvolutionBackpropData",
            "GroupConvolutionBackpropData",
            "MatMul",
        }
    ),
    rounding=frozenset({"FakeQuantize"}),
    affine=frozenset({"Add", "Subtract", "Multiply", "Divide"}),
    following=frozenset({"Relu", "Clamp", "PRelu", "BatchNormInference", "Convert"}),
    moving=frozenset({"Reshape", "Squeeze", "Unsqueeze", "Transpose", "Convert", "ShapeOf"}),
)


def trace_openvino(
    artifact: Artifact, threads: int, batches: Iterable[Arrays], max_bytes: int
) -> Iterator[list[TracedLayer]]:
    """Yield for each batch the layers of the topology in their order.

    Raises:
        ConversionError: the runtime refuses the topology with its inner values as outputs.
    """
    with quiet():
        import openvino

    try:
        core = openvino.Core()
        model = core.read_model(str(artifact.path))
        nodes, constants, ports, sizes = [], set(), {}, {}
        for op in model.get_ordered_ops():
            name, kind = op.get_friendly_name(), op.get_type_name()
            if kind == "Constant":
                constants.add(name)
            if kind in _NOT_OPERATORS or op.get_output_size() == 0:
                continue
            sources = tuple(value.get_source_output().get_node().get_friendly_name() for value in op.inputs())
            names = () if _GENERATED.fullmatch(name) else (name,)
            nodes.append(trace.Node(names=names, operator=kind, inputs=sources, output=name))
            port = op.output(0)
            if port.get_element_type().is_real() and port.get_partial_shape().rank.is_static:
                count = 1
                for size in port.get_partial_shape():
                    count *= size.get_length() if size.is_static else 1
                ports[name], sizes[name] = port, count * _FLOAT_BYTES
        ends = frozenset(
            result.input(0).get_source_output().get_node().get_friendly_name()
            for result in model.get_results()
        )
        found = trace.blocks(nodes, frozenset(constants), ends, OPERATORS)
        wanted = trace.within({b.tensor: sizes[b.tensor] for b in found if b.tensor in sizes}, max_bytes)
        first = len(model.outputs)
        inner = [name for name in wanted if name not in ends]
        for name in inner:
            model.add_outputs([ports[name]])
        places = {name: first + index for index, name in enumerate(inner)}
        places |= {
            result.input(0).get_source_output().get_node().get_friendly_name(): index
            for index, result in enumerate(model.get_results()[:first])
        }
        request = core.compile_model(
            model, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
        ).create_infer_request()
        for batch in batches:
            results = request.infer([batch[spec.name] for spec in artifact.inputs])
            values = {name: results[places[name]].copy() for name in wanted}
            yield trace.layers(found, values)
    except Exception as err:  # the binding raises RuntimeError and its own kin
        raise ConversionError(f"OpenVINO cannot trace {artifact.path.name}: {first_line(err)}") from err
