"""Images whose steps are put off: what is read of the source, what becomes of it, and what its values turn into.

All of it is done at once, row by row, where the pixels are wanted: the raw image is never copied.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from edgewright.core.tensors import Array
from edgewright.processing.c_site import Argument, Buffer, Call, CValue, Site
from edgewright.processing.images import Normalize
from edgewright.processing.step import Frame, Step
from edgewright.processing.tensors import Scale
from edgewright.processing.values import ValueType

C_ORDERS = {"rgb": "EW_RGB", "bgr": "EW_BGR", "rgba": "EW_RGBA", "grey": "EW_GREY"}
# Steps that take a picture as it is; for others its pixels are made first.
PICTURE_STEPS = frozenset(
    {
        "channels",
        "crop",
        "resize",
        "short_side",
        "letterbox",
        "normalize",
        "layout",
        "scale",
        "quantize",
        "cast",
    }
)
_SLOTS = 7  # of ew_filter.c
_IMAGES = ("ew_views", "ew_places", "ew_taps", "ew_filter", "ew_resample")


@dataclass(frozen=True, kw_only=True, eq=False)
class Picture(CValue):
    """An image that is not made yet; `bound` and `place` are empty.

    Attributes:
        pixels: the type before `tail`: uint8, hwc.
        source: height and width of what is read, at most.
        reads: calls that say what is read.
        places: those that say what becomes of it; none where it keeps its size.
        method: of the core: "EW_BILINEAR", ...
        ratio: pixels of the source for one of the result, at most, over both axes.
        tail: steps from a byte to a value.
        is_read_as: it has got another order of channels already.
        has_border: part of the canvas is filled.
    """

    pixels: ValueType
    source: tuple[int, int]
    reads: tuple[Call, ...]
    places: tuple[Call, ...] = ()
    method: str = "EW_BILINEAR"
    corners: str = "EW_HALF_PIXEL"
    ratio: float = 1.0
    tail: tuple[Step, ...] = ()
    is_chw: bool = False
    is_read_as: bool = False
    has_border: bool = False

    def then(self, function: str, *arguments: Argument, is_checked: bool = False) -> Call:
        """Return a call that takes the run first."""
        return Call(function=function, arguments=("run", *arguments), is_checked=is_checked)


def raw_picture(site: Site, number: int, made: ValueType) -> Picture:
    """Return raw input `number` as a picture."""
    call = Call(function="ew_view_raw", arguments=("run", number, C_ORDERS[made.order]))
    sides = (site.max_side, site.max_side)
    return Picture(type=made, bound=(), place="", pixels=made, source=sides, reads=(call,))


def picture_of(site: Site, value: CValue) -> Picture:
    """Return `value` as a picture: itself, or made pixels as a source."""
    if isinstance(value, Picture) and not value.tail and not value.is_chw:
        return value
    if isinstance(value, Picture):
        value = dense(site, value)
    made = value.type
    if made.kind != "image" or made.dtype != "uint8" or made.layout != "hwc":
        raise site.refused(f"it gets {made}, and uint8 pixels, hwc, are expected there")
    height, width, _ = value.bound
    call = Call(
        function="ew_view_dense",
        arguments=("run", value, height, width, C_ORDERS[made.order], value.geometry),
    )
    return Picture(type=made, bound=(), place="", pixels=made, source=(height, width), reads=(call,))


def one_resize(site: Site, value: CValue) -> Picture:
    """Return `value` as a picture that is not resized yet."""
    made = picture_of(site, value)
    return picture_of(site, dense(site, made)) if made.places else made


def dense(site: Site, picture: Picture) -> CValue:
    """Return the picture with its values made."""
    height, width, channels = picture.pixels.height, picture.pixels.width, picture.pixels.channels
    if height is None or width is None:
        raise site.refused(
            f"it is {picture.pixels}, whose size is not known before it runs; a resize, a crop or a letterbox to a "
            "size is expected before it"
        )
    value = site.value(picture.type)
    _see(site, picture)
    target = value.place
    assert isinstance(target, Buffer)
    is_chw = int(picture.is_chw)
    if not picture.tail:
        site.call("ew_sink_bytes", "run", target, is_chw, file="ew_places")
    elif len(picture.tail) == 1 and isinstance(picture.tail[0], Normalize | Scale):
        factor, offset = _factors(picture.tail[0], channels)
        site.call(
            "ew_sink_floats",
            "run",
            target,
            is_chw,
            site.floats(factor),
            site.floats(offset),
            file="ew_places",
        )
    else:
        table = pointwise_table(picture.tail, picture.pixels)
        site.call(
            "ew_sink_table", "run", target, is_chw, site.table(table), table.dtype.itemsize, file="ew_places"
        )
    size = _scratch_bytes(picture, height, width, channels)
    scratch = site.buffer(size)
    target.use(len(site.calls))
    for file in _IMAGES:
        site.files.add(file)
    site.call(
        "ew_resample",
        "run",
        picture.method,
        picture.corners,
        scratch,
        size,
        file="ew_resample",
        is_checked=True,
    )
    return replace(value, geometry=_kept_geometry(site))


def geometry_of(site: Site, value: CValue) -> int:
    """Return the number of the geometry of `value`, which is found now where it is a picture."""
    if not isinstance(value, Picture):
        return value.geometry
    _see(site, value)
    return _kept_geometry(site)


def _see(site: Site, picture: Picture) -> None:
    places = picture.places or (picture.then("ew_place_same"),)
    for call in picture.reads:
        site.call(call.function, *call.arguments, file="ew_views", is_checked=call.is_checked)
    for call in places:
        site.call(call.function, *call.arguments, file="ew_places", is_checked=call.is_checked)
    # The source of a picture in the arena is read to the end of the work.
    for call in picture.reads:
        for argument in call.arguments:
            if isinstance(argument, CValue) and isinstance(argument.place, Buffer):
                argument.place.use(len(site.calls) + 1)


def _kept_geometry(site: Site) -> int:
    number = site.geometry()
    site.call("ew_keep_geometry", "run", number, file="ew_places")
    return number


def pointwise_table(steps: tuple[Step, ...], pixels: ValueType) -> Array:
    """Return what `steps` make of each byte of each channel: [channels * 256], by the steps themselves."""
    have = replace(pixels, shape=(256, 1, pixels.channels))
    values: Array = np.repeat(np.arange(256, dtype=np.uint8)[:, None, None], pixels.channels, axis=2)
    for step in steps:
        made = step.result((have,))
        values = step.apply((values,), Frame(given=(have,)))
        have = made
    return np.ascontiguousarray(values.reshape(256, pixels.channels).T).reshape(-1)


def _factors(step: Normalize | Scale, channels: int) -> tuple[Array, Array]:
    if isinstance(step, Normalize):
        return step.factors(channels)
    factor, offset = (
        np.broadcast_to(np.array(n, dtype=np.float32), (channels,)) for n in (step.factor, step.offset)
    )
    return factor, offset


def _scratch_bytes(picture: Picture, height: int, width: int, channels: int) -> int:
    """Return what ew_resample takes at most; see the calls of ew_take there and in ew_filter.c."""
    row = width * channels
    pieces = [8 * row, row]
    if picture.method == "EW_NEAREST":
        pieces += [4 * width, row]
    elif picture.method in ("EW_BILINEAR", "EW_BICUBIC"):
        taps = 2 if picture.method == "EW_BILINEAR" else 4
        pieces += [4 * width * taps, 2 * width * taps, 4 * width * taps, row * taps, 4 * row * taps, row]
    else:
        reach = {"EW_AREA": 1, "EW_BILINEAR_FILTER": 2, "EW_BICUBIC_FILTER": 4}[picture.method]
        most = reach * min(math.ceil(picture.ratio), max(picture.source)) + 4
        pieces += [4 * width, 4 * width, 4 * width * most, 4 * _SLOTS * most, 4 * _SLOTS * row, row, row]
        pieces.append(picture.source[1] * channels)
    # `same` takes a row.
    pieces.append(row)
    return sum(-(-piece // 16) * 16 for piece in pieces)
