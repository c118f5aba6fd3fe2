"""C of the steps to masks and keypoints, and of those back to the pixels of the source."""

from __future__ import annotations

import math
from dataclasses import replace

from edgewright.processing.c_pictures import geometry_of
from edgewright.processing.c_site import CValue, Site
from edgewright.processing.c_text import c_float
from edgewright.processing.keypoints import HeatmapKeypoints, Keypoints
from edgewright.processing.masks import Argmax, Mask
from edgewright.processing.source import ToSource
from edgewright.processing.step import Step
from edgewright.processing.values import ValueType

_FILE = "ew_masks"


def argmax(site: Site, step: Step, given: tuple[CValue, ...], made: ValueType) -> CValue:
    """Make the C of "argmax"."""
    assert isinstance(step, Argmax)
    (have,) = given
    value = site.value(made)
    classes = have.bound[-1 if step.axis == "last" else 0]
    site.call(
        "ew_argmax", have, have.c_dtype, value.most, classes, int(step.axis == "first"), value, file=_FILE
    )
    return value


def mask(site: Site, step: Step, given: tuple[CValue, ...], made: ValueType) -> CValue:
    """Make the C of "mask"."""
    assert isinstance(step, Mask)
    (have,) = given
    value = site.value(made)
    site.call("ew_mask", have, have.c_dtype, have.most, c_float(step.threshold), value, file=_FILE)
    return value


def heatmap_keypoints(site: Site, step: Step, given: tuple[CValue, ...], made: ValueType) -> CValue:
    """Make the C of "heatmap_keypoints"."""
    assert isinstance(step, HeatmapKeypoints)
    (have,) = given
    value = site.value(made)
    is_last = step.layout == "hwc"
    rows, columns, points = have.bound if is_last else (*have.bound[1:], have.bound[0])
    site.call(
        "ew_heatmaps", have, points, rows, columns, int(is_last), int(step.refine), c_float(step.height / rows),
        c_float(step.width / columns), value, file=_FILE,
    )  # fmt: skip
    return value


def keypoints(site: Site, step: Step, given: tuple[CValue, ...], made: ValueType) -> CValue:
    """Make the C of "keypoints"."""
    assert isinstance(step, Keypoints)
    (have,) = given
    value = site.value(made)
    places = [step.format.find(letter) for letter in "xys"]
    site.call(
        "ew_keypoints",
        have,
        have.bound[0],
        have.bound[1],
        *places,
        step.height,
        step.width,
        value,
        file=_FILE,
    )
    return value


def to_source(site: Site, step: Step, given: tuple[CValue, ...], made: ValueType) -> CValue:
    """Make the C of "to_source"."""
    assert isinstance(step, ToSource)
    (have,) = given
    if (step.image or len(site.images) != 1) and step.image not in site.images:
        raise site.refused(f"it names the image {step.image!r}, of {sorted(site.images)}")
    name = step.image or next(iter(site.images))
    number = geometry_of(site, site.images[name])
    if number < 0:
        raise site.refused(f"nothing says where the pixels of {name!r} lie")
    if have.type.kind == "mask":
        return _mask_to_source(site, step, have, made, number)
    columns = math.prod(have.bound[1:])
    rows = have.rows or str(have.bound[0])
    if have.type.kind != "boxes":
        value = site.value(made, have)
        site.call("ew_points_to_source", "run", number, have, rows, columns, value, file="ew_boxes")
        return value
    left = site.length()
    value = site.value(made, rows=left, bound=have.bound)
    site.call(f"{left} = ew_boxes_to_source", "run", number, have, rows, columns, value, file="ew_boxes")
    return value


def _mask_to_source(site: Site, step: ToSource, have: CValue, made: ValueType, number: int) -> CValue:
    if have.rows:
        raise site.refused(f"it gets {have.type}, whose size is not known before it runs")
    rows, columns = site.length(), site.length()
    side = min(site.max_side, site.max_mask_pixels)
    whole = site.value(have.type, bound=(site.max_mask_pixels, 1))
    site.call(
        "ew_mask_to_source", "run", number, have, have.item_bytes, *have.bound, step.fill, whole, site.max_mask_pixels,
        site.buffer(4 * site.max_side), f"&{rows}", f"&{columns}", file=_FILE, is_checked=True,
    )  # fmt: skip
    return replace(whole, type=made, bound=(side, side), rows=rows, columns=columns)
