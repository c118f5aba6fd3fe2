"""Which steps of a processing the graph can carry, and why not the others."""

from __future__ import annotations

from dataclasses import dataclass

from edgewright.processing.anchors import DecodeAnchors
from edgewright.processing.boxes import JoinBoxes
from edgewright.processing.grids import DecodeGrid, DecodeYolo
from edgewright.processing.images import Channels, Crop, Layout, Normalize
from edgewright.processing.masks import Argmax, Mask
from edgewright.processing.nms import Nms
from edgewright.processing.resampling import Corners, Method, Taps, filter_taps, point_taps
from edgewright.processing.resize import Letterbox, Resize, ShortSide
from edgewright.processing.scores import Sigmoid, Softmax, TopK
from edgewright.processing.step import Step
from edgewright.processing.tensors import Cast, Dequantize, Reshape, Scale, Transpose
from edgewright.processing.values import ValueType

DECODERS = (JoinBoxes, DecodeAnchors, DecodeGrid, DecodeYolo)
_MASK_CLASSES = 256  # of a mask that is made of a tensor
# Of candidates that are compared with one another: a matrix of 16 MiB; and whole numbers up to 2048 are exact in half
# precision, too, in which some accelerators compute.
MAX_COMPARED = 2048
MAX_PICKED = 512  # boxes: each is four operators of the graph
_LEAST_SCORE = -1e30
MAX_TAPS = 64  # along one axis: each is three operators of the graph
_PLAIN = (Cast, Crop, Dequantize, Layout, Mask, Normalize, Reshape, Scale, Sigmoid, Softmax, Transpose)


def why_not(step: Step, given: tuple[ValueType, ...]) -> str:
    """Return why the graph cannot carry `step` on values of the types `given`; empty where it can."""
    if step.geometry_of() is not None:
        return "it reads where the pixels of the image lay"
    for have in given:
        if None in have.shape:
            return f"it gets {have}, of which a size is open"
    if isinstance(step, DECODERS):
        return ""
    if len(given) != 1:
        return "it takes several values"
    (have,) = given
    if isinstance(step, Nms):
        return _why_not_nms(step, have)
    if isinstance(step, TopK):
        return "how many classes it gives shows only when it runs"
    if isinstance(step, Channels):
        is_turned = {step.order, have.order} <= {"rgb", "bgr"}
        return (
            "" if is_turned else f"only rgb and bgr are turned in the graph, not {have.order} to {step.order}"
        )
    if isinstance(step, (Resize, ShortSide, Letterbox)):
        return _why_not_resize(step, have)
    if isinstance(step, Argmax):
        classes = have.shape[-1 if step.axis == "last" else 0]
        is_small = classes is not None and classes <= _MASK_CLASSES
        return (
            "" if is_small else f"a mask of {classes} classes cannot be made of a tensor; {_MASK_CLASSES} can"
        )
    is_carried = isinstance(step, _PLAIN) and not (isinstance(step, Cast) and step.dtype != "float32")
    return "" if is_carried else "no operator does the same"


def compared(step: Nms, candidates: ValueType) -> int:
    """Return how many candidates take part in a suppression whose candidates are of a known number."""
    count = candidates.shape[0]
    assert count is not None
    return min(step.before, count)


def _why_not_nms(step: Nms, have: ValueType) -> str:
    if step.mode != "hard":
        return f"its mode is {step.mode!r}, and only 'hard' has operators in every runtime"
    if step.multi_label:
        return "with multi_label one candidate is several, and how many shows only when it runs"
    if compared(step, have) > MAX_COMPARED:
        return f"{compared(step, have)} candidates take part; the graph compares up to {MAX_COMPARED}: set `before`"
    if min(step.limit, compared(step, have)) > MAX_PICKED:
        return f"it keeps up to {step.limit} boxes; the graph picks up to {MAX_PICKED}: set `limit`"
    if not step.score > _LEAST_SCORE:
        return f"its score is {step.score:g}, and rows that are not used need one below"
    return ""


@dataclass(frozen=True, kw_only=True)
class Resampling:
    """A size and how an image gets it; the words are those of the step "resize"."""

    height: int
    width: int
    method: Method
    antialias: bool = False
    corners: Corners = "half_pixel"

    @property
    def is_filter(self) -> bool:
        """Whether all pixels that an output pixel covers take part."""
        return self.antialias or self.method == "area"


def resampling(step: Resize | ShortSide | Letterbox, given: ValueType) -> Resampling:
    """Return what `step` makes of the pixels of an image of known size; a letterbox adds its border to that."""
    assert given.height is not None and given.width is not None
    if isinstance(step, Resize):
        return Resampling(
            height=step.height, width=step.width, method=step.method, antialias=step.antialias,
            corners=step.corners,
        )  # fmt: skip
    if isinstance(step, ShortSide):
        height, width = step.sides(given.height, given.width)
    else:
        _, _, height, width = step.place(given.height, given.width)
    return Resampling(height=height, width=width, method=step.method, antialias=step.antialias)


def taps_of(given: ValueType, asked: Resampling) -> tuple[Taps, Taps]:
    """Return the taps across and down, of any method but nearest."""
    assert given.height is not None and given.width is not None
    if asked.is_filter:
        return (
            filter_taps(given.width, asked.width, asked.method),
            filter_taps(given.height, asked.height, asked.method),
        )
    return (
        point_taps(given.width, asked.width, asked.method, asked.corners),
        point_taps(given.height, asked.height, asked.method, asked.corners),
    )


def _why_not_resize(step: Resize | ShortSide | Letterbox, have: ValueType) -> str:
    if have.kind != "image" or have.layout != "hwc":
        return f"it gets {have}"
    asked = resampling(step, have)
    if asked.method == "nearest":
        return ""
    count = max(taps.indices.shape[1] for taps in taps_of(have, asked))
    if count > MAX_TAPS:
        return f"{count} pixels in a row make one of {asked.width}x{asked.height}; the graph adds up to {MAX_TAPS}"
    return ""
