"""C of the steps on images: put off as long as they can be, see `c_pictures`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edgewright.processing.c_pictures import C_ORDERS, Picture, dense, one_resize, picture_of
from edgewright.processing.c_site import CValue, Site
from edgewright.processing.c_steps_tensors import affine, cast, quantize, scale, transposed
from edgewright.processing.images import Channels, Crop, Layout, Normalize
from edgewright.processing.resampling import Method
from edgewright.processing.resize import Letterbox, Resize, ShortSide
from edgewright.processing.step import Step
from edgewright.processing.values import ValueType

_METHODS = {"nearest": "EW_NEAREST", "bilinear": "EW_BILINEAR", "bicubic": "EW_BICUBIC", "area": "EW_AREA"}
_CORNERS = {"half_pixel": "EW_HALF_PIXEL", "align": "EW_ALIGN", "asymmetric": "EW_ASYMMETRIC"}


def channels(site: Site, step: Step, given: tuple[CValue, ...], made: ValueType) -> CValue:
    """Make the C of "channels"."""
    assert isinstance(step, Channels)
    have = picture_of(site, given[0])
    before = have.pixels.order
    if before == step.order:
        return replace(have, type=made, pixels=made)
    arguments: tuple[str | int, ...] = (C_ORDERS[step.order], *step.background)
    is_swap = {before, step.order} == {"rgb", "bgr"}
    if not have.is_read_as and (not have.places or (is_swap and not have.has_border)):
        call = have.then("ew_view_channels", *arguments)
        return replace(have, type=made, pixels=made, reads=(*have.reads, call), is_read_as=True)
    source = dense(site, have)
    value = replace(site.value(made, source), geometry=source.geometry)
    height, width, _ = source.bound
    site.call(
        "ew_channels", "run", source, height, width, C_ORDERS[before], value, *arguments, file="ew_views"
    )
    return value


def crop(site: Site, step: Step, given: tuple[CValue, ...], made: ValueType) -> CValue:
    """Make the C of "crop"."""
    assert isinstance(step, Crop)
    have = picture_of(site, given[0])
    if have.has_border:
        have = picture_of(site, dense(site, have))
    if not have.places:
        if step.fraction:
            call = have.then("ew_view_crop_fraction", repr(step.fraction), int(step.square))
        else:
            call = have.then("ew_view_crop", step.height, step.width, is_checked=True)
        return replace(have, type=made, pixels=made, reads=(*have.reads, call))
    height, width = made.height, made.width
    if height is None or width is None:
        raise site.refused("it cuts a fraction of an image whose size is not known before it runs")
    call = have.then("ew_place_crop", height, width, is_checked=True)
    return replace(have, type=made, pixels=made, places=(*have.places, call))


def resize(site: Site, step: Step, given: tuple[CValue, ...], made: ValueType) -> CValue:
    """Make the C of "resize"."""
    assert isinstance(step, Resize)
    if given[0].type.dtype == "float32":
        return _resize_floats(site, step, given[0], made)
    have = one_resize(site, given[0])
    call = have.then("ew_place_resize", step.height, step.width)
    ratio = max(have.source[0] / step.height, have.source[1] / step.width)
    return replace(
        have, type=made, pixels=made, places=(call,), method=_method(step.method, step.antialias),
        corners=_CORNERS[step.corners], ratio=ratio,
    )  # fmt: skip


def short_side(site: Site, step: Step, given: tuple[CValue, ...], made: ValueType) -> CValue:
    """Make the C of "short_side"."""
    assert isinstance(step, ShortSide)
    have = one_resize(site, given[0])
    call = have.then("ew_place_short_side", step.size, is_checked=True)
    # The longer side is rounded down: (size + 1) / size more pixels go into one of the result.
    ratio = max(have.source) / step.size * (step.size + 1) / step.size
    return replace(
        have, type=made, pixels=made, places=(call,), method=_method(step.method, step.antialias), ratio=ratio
    )


def letterbox(site: Site, step: Step, given: tuple[CValue, ...], made: ValueType) -> CValue:
    """Make the C of "letterbox"."""
    assert isinstance(step, Letterbox)
    have = one_resize(site, given[0])
    fill = np.broadcast_to(np.array(step.fill, dtype=np.uint8), (made.channels,))
    call = have.then(
        "ew_place_letterbox",
        step.height,
        step.width,
        int(step.anchor == "top_left"),
        int(step.grow),
        site.table(fill),
    )
    # A side of half a pixel more or less than a whole one: 3 / 2 as many pixels go into one of the result.
    ratio = 1.5 * max(have.source[0] / step.height, have.source[1] / step.width)
    return replace(
        have, type=made, pixels=made, places=(call,), method=_method(step.method, step.antialias), ratio=ratio,
        has_border=True,
    )  # fmt: skip


def normalize(site: Site, step: Step, given: tuple[CValue, ...], made: ValueType) -> CValue:
    """Make the C of "normalize"."""
    assert isinstance(step, Normalize)
    (have,) = given
    if isinstance(have, Picture):
        return _later(site, have, step, made)
    return affine(site, have, made, *step.factors(have.type.channels))


def layout(site: Site, step: Step, given: tuple[CValue, ...], made: ValueType) -> CValue:
    """Make the C of "layout"."""
    assert isinstance(step, Layout)
    (have,) = given
    if have.type.layout == step.layout:
        return replace(have, type=made)
    if isinstance(have, Picture):
        return replace(have, type=made, is_chw=step.layout == "chw")
    axes = (2, 0, 1) if step.layout == "chw" else (1, 2, 0)
    return replace(transposed(site, have, made, axes), geometry=have.geometry)


def scale_image(site: Site, step: Step, given: tuple[CValue, ...], made: ValueType) -> CValue:
    """Make the C of "scale" of an image or of any array."""
    if isinstance(given[0], Picture):
        return _later(site, given[0], step, made)
    return scale(site, step, given, made)


def quantize_image(site: Site, step: Step, given: tuple[CValue, ...], made: ValueType) -> CValue:
    """Make the C of "quantize" of an image or of any array."""
    if isinstance(given[0], Picture) and made.dtype in ("int8", "uint8"):
        return _later(site, given[0], step, made)
    return quantize(site, step, _made(site, given), made)


def cast_image(site: Site, step: Step, given: tuple[CValue, ...], made: ValueType) -> CValue:
    """Make the C of "cast" of an image or of any array."""
    if isinstance(given[0], Picture) and made.dtype in ("int8", "uint8", "float32"):
        return _later(site, given[0], step, made)
    return cast(site, step, _made(site, given), made)


def _made(site: Site, given: tuple[CValue, ...]) -> tuple[CValue, ...]:
    return tuple(dense(site, value) if isinstance(value, Picture) else value for value in given)


def _later(site: Site, have: Picture, step: Step, made: ValueType) -> CValue:
    """Put off a step from a byte to a value."""
    return replace(have, type=made, tail=(*have.tail, step))


def _method(method: Method, antialias: bool) -> str:
    return _METHODS[method] + ("_FILTER" if antialias else "")


def _resize_floats(site: Site, step: Resize, have: CValue, made: ValueType) -> CValue:
    if isinstance(have, Picture):
        have = dense(site, have)
    if have.rows:
        raise site.refused(f"it gets {have.type}, whose size is not known before it runs")
    height, width, count = have.bound
    value = site.value(made)
    # All rows made across, and the indices and weights of one output pixel's taps.
    most = 4 * max(-(-height // step.height), -(-width // step.width)) + 2
    size = 4 * height * step.width * count + 2 * 4 * most + 48
    site.call(
        "ew_resize_floats", have, height, width, count, value, step.height, step.width,
        _method(step.method, step.antialias), _CORNERS[step.corners], site.buffer(size), size,
        file="ew_resize_floats", is_checked=True,
    )  # fmt: skip
    site.files.add("ew_taps")
    site.files.add("ew_resample")
    if have.geometry < 0:
        return value
    number = site.geometry()
    site.call("ew_scale_geometry", "run", have.geometry, number, step.height, step.width, file="ew_places")
    return replace(value, geometry=number)
