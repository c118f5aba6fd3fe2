"""LiteRT -> ONNX: images of another size."""

from __future__ import annotations

import numpy as np

from edgewright.bridges.tflite_builder import Builder, UnsupportedError, sizes
from edgewright.bridges.tflite_model import Operation
from edgewright.bridges.tflite_ops import operator
from edgewright.bridges.tflite_ops_convolution import FIRST, LAST
from edgewright.core.errors import IntegrityError


@operator("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR")
def resize(b: Builder, operation: Operation) -> None:
    """Corners aligned, centres of pixels aligned, or neither (x = out * in size / out size).

    LiteRT's nearest pixel is floor(x), with aligned corners round(x), and with aligned centres floor(x + 0.5) of the
    x that ONNX means.
    """
    tensor, result = b.source(operation, 0), b.result(operation)
    if len(tensor.shape) != 4 or len(result.shape) != 4:
        raise IntegrityError(f"{operation.name} of a tensor of rank {len(tensor.shape)}.")
    corners, centres = operation.flag("alignCorners"), operation.flag("halfPixelCenters")
    if corners and centres:
        raise UnsupportedError("corners and centres aligned at once")
    is_linear = operation.name == "RESIZE_BILINEAR"
    before, after = sizes(tensor.shape, (1, 2)), sizes(result.shape, (1, 2))
    if min(*before, *after) < 1:
        raise IntegrityError(f"{operation.name} from {before} to {after}.")
    image = b.transposed(b.real(tensor), FIRST[4])
    attributes = {
        "mode": "linear" if is_linear else "nearest",
        "coordinate_transformation_mode": "align_corners"
        if corners
        else "half_pixel"
        if centres
        else "asymmetric",
        "nearest_mode": "round_prefer_ceil" if corners or centres else "floor",
    }
    (channels,) = sizes(tensor.shape, [3])
    if tensor.shape[0] is not None:
        inputs = [image, "", "", b.integers([tensor.shape[0], channels, *after])]
    else:
        factors = [_factor(old, new) for old, new in zip(before, after, strict=True)]
        inputs = [image, "", b.constant(np.asarray([1, 1, *factors], dtype=np.float32))]
    b.put(result, b.transposed(b.node("Resize", inputs, attributes), LAST[4]))


def _factor(old: int, new: int) -> np.float32:
    """Return the float32 with floor(old * factor) = new that is nearest to new / old."""
    factor = np.float32(new / old)
    while int(np.floor(np.float32(old) * factor)) < new:
        factor = np.nextafter(factor, np.float32(np.inf))
    return factor
