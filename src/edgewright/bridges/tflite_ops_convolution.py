"""LiteRT -> ONNX: convolutions and pools. LiteRT has channels last, ONNX has them first: Transposes stand around."""

from __future__ import annotations

from collections.abc import Sequence

from edgewright.bridges.tflite_builder import Builder, UnsupportedError, sizes
from edgewright.bridges.tflite_graph import Attribute
from edgewright.bridges.tflite_model import Operation, Tensor
from edgewright.bridges.tflite_ops import operator
from edgewright.core.errors import IntegrityError

FIRST = {3: (0, 2, 1), 4: (0, 3, 1, 2), 5: (0, 4, 1, 2, 3)}
LAST = {3: (0, 2, 1), 4: (0, 2, 3, 1), 5: (0, 2, 3, 4, 1)}
_SAME, _VALID = 0, 1


def spatial_pads(
    tensor: Tensor, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int], padding: int
) -> list[int]:
    """Return ONNX pads (all begins, then all ends) of the spatial axes 1.. of `tensor` for SAME or VALID.

    SAME: out = ceil(in / stride), and of what is missing the smaller half comes first.
    """
    if padding not in (_SAME, _VALID):
        raise IntegrityError(f"padding {padding} does not exist.")
    if min(*strides, *dilations, *kernel) < 1:
        raise IntegrityError(f"kernel {kernel}, strides {strides} or dilations {dilations} below 1.")
    if padding == _VALID:
        return [0] * (2 * len(kernel))
    begins, ends = [], []
    extents = sizes(tensor.shape, range(1, 1 + len(kernel)))
    for size, width, stride, dilation in zip(extents, kernel, strides, dilations, strict=True):
        reach = (width - 1) * dilation + 1
        total = max((-(-size // stride) - 1) * stride + reach - size, 0)
        begins.append(total // 2)
        ends.append(total - total // 2)
    return begins + ends


def finish(b: Builder, operation: Operation, value: str) -> None:
    """Apply the fused activation to channels-first `value` and store it channels last."""
    result = b.result(operation)
    value = b.activated(value, operation.integer("fusedActivationFunction"), result)
    b.put(result, b.transposed(value, LAST[len(result.shape)]))


def _image(b: Builder, operation: Operation, position: int, rank: int = 4) -> tuple[Tensor, str]:
    tensor = b.source(operation, position)
    if len(tensor.shape) != rank:
        raise IntegrityError(f"{operation.name} reads a tensor of rank {len(tensor.shape)}, not {rank}.")
    return tensor, b.transposed(b.real(tensor), FIRST[rank])


def _bias(b: Builder, operation: Operation, position: int) -> list[str]:
    return [b.weights(operation, position, (0,))] if b.has(operation, position) else []


def note_hybrid(b: Builder, operation: Operation, position: int = 1) -> None:
    """Note that LiteRT would round these activations when the model runs, which ONNX does not."""
    weights, activation = b.source(operation, position), b.source(operation, 0)
    note = (
        "int8 weights with float activations: LiteRT rounds the activations to 8 bits when the model runs, "
        "the ONNX model computes in float32"
    )
    if weights.dtype in ("int8", "uint8", "int4") and activation.dtype == "float32" and note not in b.notes:
        b.notes.append(note)


@operator("CONV_2D", "DEPTHWISE_CONV_2D", "CONV_3D")
def convolution(b: Builder, operation: Operation) -> None:
    """Weights OHWI, depthwise 1HWO, 3-D DHWIO."""
    rank = 5 if operation.name == "CONV_3D" else 4
    tensor, image = _image(b, operation, 0, rank)
    weights = b.source(operation, 1)
    if len(weights.shape) != rank:
        raise IntegrityError(f"{operation.name} has weights of rank {len(weights.shape)}.")
    (channels,) = sizes(tensor.shape, [rank - 1])
    axes = {"CONV_2D": (0, 3, 1, 2), "DEPTHWISE_CONV_2D": (3, 0, 1, 2), "CONV_3D": (4, 3, 0, 1, 2)}[
        operation.name
    ]
    shape = sizes(weights.shape, axes)
    if channels < 1 or shape[1] < 1 or channels % shape[1]:
        raise IntegrityError(f"{operation.name} has {channels} channels and weights for {shape[1]}.")
    names = ["D", "H", "W"][5 - rank :]
    strides = [operation.integer(f"stride{name}") for name in names]
    dilations = [operation.integer(f"dilation{name}Factor", 1) for name in names]
    pads = spatial_pads(tensor, shape[2:], strides, dilations, operation.integer("padding"))
    attributes: dict[str, Attribute] = {
        "kernel_shape": tuple(shape[2:]),
        "strides": tuple(strides),
        "dilations": tuple(dilations),
        "pads": tuple(pads),
        "group": channels if operation.name == "DEPTHWISE_CONV_2D" else channels // shape[1],
    }
    note_hybrid(b, operation)
    value = b.node("Conv", [image, b.weights(operation, 1, axes), *_bias(b, operation, 2)], attributes)
    finish(b, operation, value)


@operator("TRANSPOSE_CONV")
def transposed_convolution(b: Builder, operation: Operation) -> None:
    """Inputs: the output's shape, weights OHWI, image, bias. The pads are those of the convolution it reverses."""
    tensor, image = _image(b, operation, 2)
    weights, result = b.source(operation, 1), b.result(operation)
    if len(weights.shape) != 4 or len(result.shape) != 4:
        raise IntegrityError("TRANSPOSE_CONV with weights or a result that are not of rank 4.")
    kernel = sizes(weights.shape, (1, 2))
    strides = [operation.integer("strideH"), operation.integer("strideW")]
    pads = spatial_pads(result, kernel, strides, (1, 1), operation.integer("padding"))
    inner, outer = sizes(tensor.shape, (1, 2)), sizes(result.shape, (1, 2))
    extra = []
    for axis in range(2):
        made = (inner[axis] - 1) * strides[axis] + kernel[axis] - pads[axis] - pads[axis + 2]
        extra.append(outer[axis] - made)
        if extra[axis] < 0:  # the reversed convolution left a rest out
            pads[axis + 2] -= extra[axis]
            extra[axis] = 0
    if any(more >= stride for more, stride in zip(extra, strides, strict=True)):
        raise UnsupportedError(f"an output of {outer} from {inner} with strides {strides}")
    note_hybrid(b, operation)
    attributes: dict[str, Attribute] = {
        "kernel_shape": tuple(kernel),
        "strides": tuple(strides),
        "pads": tuple(pads),
        "output_padding": tuple(extra),
    }
    inputs = [image, b.weights(operation, 1, (3, 0, 1, 2)), *_bias(b, operation, 3)]
    finish(b, operation, b.node("ConvTranspose", inputs, attributes))


@operator("AVERAGE_POOL_2D", "MAX_POOL_2D", "L2_POOL_2D")
def pool(b: Builder, operation: Operation) -> None:
    """Means leave padding out; L2 is the root of the mean of squares."""
    tensor, image = _image(b, operation, 0)
    kernel = [operation.integer("filterHeight"), operation.integer("filterWidth")]
    strides = [operation.integer("strideH"), operation.integer("strideW")]
    pads = spatial_pads(tensor, kernel, strides, (1, 1), operation.integer("padding"))
    attributes: dict[str, Attribute] = {
        "kernel_shape": tuple(kernel),
        "strides": tuple(strides),
        "pads": tuple(pads),
    }
    is_whole = kernel == sizes(tensor.shape, (1, 2)) and not any(pads)
    if operation.name == "MAX_POOL_2D":
        value = b.node("MaxPool", [image], attributes)
    elif operation.name == "AVERAGE_POOL_2D":
        value = (
            b.node("GlobalAveragePool", [image]) if is_whole else b.node("AveragePool", [image], attributes)
        )
    else:
        value = b.node("AveragePool", [b.node("Mul", [image, image])], attributes)
        value = b.node("Sqrt", [value])
    finish(b, operation, value)


@operator("LOCAL_RESPONSE_NORMALIZATION")
def local_response(b: Builder, operation: Operation) -> None:
    """LiteRT adds alpha * sum of squares over 2 * radius + 1 channels, ONNX alpha / size * sum."""
    _, image = _image(b, operation, 0)
    size = 2 * operation.integer("radius") + 1
    value = b.node(
        "LRN",
        [image],
        {
            "size": size,
            "alpha": operation.real("alpha") * size,
            "beta": operation.real("beta"),
            "bias": operation.real("bias"),
        },
    )
    b.put(b.result(operation), b.transposed(value, LAST[4]))
