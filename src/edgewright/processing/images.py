"""Steps on an image's pixels and channels: colour order, crop, normalization, layout."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np

from edgewright.core.errors import DataError, UsageError
from edgewright.core.tensors import Array
from edgewright.processing.resize import check_side, require_pixels
from edgewright.processing.step import Floats, Frame, Geometry, Step, floats
from edgewright.processing.values import ValueType

# ITU-R BT.601 luma, 0.299 R + 0.587 G + 0.114 B, in 2**-16; as Pillow's convert("L").
_LUMA = (19595, 38470, 7471)


@dataclass(frozen=True, kw_only=True)
class Channels(Step):
    """Change the colours' order, make grey of colour or colour of grey, lay what is transparent on a background.

    grey = (19595 R + 38470 G + 7471 B + 32768) >> 16 (ITU-R BT.601, as Pillow).
    Alpha: (colour * alpha + background * (255 - alpha) + 127) // 255, before anything else.

    Attributes:
        order: of the result.
        background: red, green and blue behind transparent pixels.
    """

    name: ClassVar[str] = "channels"
    order: Literal["rgb", "bgr", "grey"]
    background: tuple[int, ...] = (255, 255, 255)

    def __post_init__(self) -> None:
        if len(self.background) != 3 or not all(0 <= value <= 255 for value in self.background):
            raise UsageError(
                f"step 'channels' has background {list(self.background)}; three numbers of 0..255 are expected."
            )

    def result(self, given: tuple[ValueType, ...]) -> ValueType:
        (have,) = given
        if have.kind != "image" or have.dtype != "uint8" or have.layout != "hwc" or not have.order:
            raise self.refuse(given, "a uint8 image, hwc,")
        count = 1 if self.order == "grey" else 3
        return replace(have, order=self.order, shape=(*have.shape[:2], count))

    def make(self, image: Array, have: str) -> Array:
        """Return `image`, whose channels are in the order `have`, in the order of this step."""
        if have == "rgba":
            alpha = image[..., 3:].astype(np.uint16)
            behind = np.array(self.background, dtype=np.uint16)
            # All of it stays below 2**16; t // 255 is (t + 1 + (t >> 8)) >> 8 there.
            total = image[..., :3].astype(np.uint16) * alpha + behind * (255 - alpha) + np.uint16(127)
            image = ((total + np.uint16(1) + (total >> 8)) >> 8).astype(np.uint8)
            have = "rgb"
        if have == self.order:
            return image
        if self.order == "grey":
            red, green, blue = (
                image[..., i].astype(np.int32) for i in ((0, 1, 2) if have == "rgb" else (2, 1, 0))
            )
            luma = red * _LUMA[0] + green * _LUMA[1] + blue * _LUMA[2]
            return ((luma + 32768) >> 16).astype(np.uint8)[..., None]
        if have == "grey":
            return np.repeat(image, 3, axis=2)
        return np.ascontiguousarray(image[..., ::-1])

    def apply(self, values: tuple[Array, ...], frame: Frame) -> Array:
        return self.make(values[0], frame.given[0].order)


@dataclass(frozen=True, kw_only=True)
class Crop(Step):
    """Keep the centre of an image: a size in pixels, or a fraction of its sides.

    The first row and column kept are floor((side - kept) / 2). A fraction keeps floor(side * fraction + 0.5), 1 at
    least.

    Attributes:
        height: of what is kept; not with `fraction`.
        width: of what is kept; not with `fraction`.
        fraction: of each side that is kept, up to 1; 0 with height and width.
        square: the fraction is of the shorter side, for both.
    """

    name: ClassVar[str] = "crop"
    height: int = 0
    width: int = 0
    fraction: float = 0.0
    square: bool = False

    def __post_init__(self) -> None:
        if self.fraction or not (self.height or self.width):
            if self.height or self.width or not 0 < self.fraction <= 1:
                raise UsageError(
                    f"step 'crop' has height {self.height}, width {self.width} and fraction {self.fraction}; "
                    "a height and a width, or a fraction above 0 up to 1, are expected."
                )
            return
        check_side(self.name, "height", self.height)
        check_side(self.name, "width", self.width)
        if self.square:
            raise UsageError("step 'crop' has a size and `square`; `square` goes with `fraction`.")

    def place(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Return (top, left, height, width) of what is kept of an image of `height` x `width`.

        Raises:
            DataError: the image is smaller than that.
        """
        if self.fraction:
            sides = (min(height, width),) * 2 if self.square else (height, width)
            kept = [max(math.floor(side * self.fraction + 0.5), 1) for side in sides]
        else:
            kept = [self.height, self.width]
        if kept[0] > height or kept[1] > width:
            raise DataError(
                f"an image of {width}x{height} pixels is cropped to {kept[1]}x{kept[0]}; "
                'it is too small for that. Resize it first ("short_side").'
            )
        return (height - kept[0]) // 2, (width - kept[1]) // 2, kept[0], kept[1]

    def result(self, given: tuple[ValueType, ...]) -> ValueType:
        have = require_pixels(self, given)
        if have.height is not None and have.width is not None:
            try:
                _, _, height, width = self.place(have.height, have.width)
            except DataError as err:
                raise UsageError(str(err)) from err
            return have.of(height, width, have.shape[2])
        return have.of(self.height or None, self.width or None, have.shape[2])

    def apply(self, values: tuple[Array, ...], frame: Frame) -> Array:
        top, left, height, width = self.place(*values[0].shape[:2])
        return np.ascontiguousarray(values[0][top : top + height, left : left + width])

    def move(self, geometry: Geometry) -> Geometry:
        top, left, height, width = self.place(geometry.height, geometry.width)
        return replace(
            geometry,
            height=height,
            width=width,
            offset_x=geometry.offset_x - left,
            offset_y=geometry.offset_y - top,
        )


@dataclass(frozen=True, kw_only=True)
class Normalize(Step):
    """(x / divisor - mean) / std for each channel, as one product and one sum in float32.

    y = x * factor + offset with factor = 1 / (divisor * std) and offset = -mean / std, computed in float64 and
    rounded to float32; the product is rounded before the sum.

    Attributes:
        mean: of each channel, or one for all, after the division.
        std: likewise; not 0.
        divisor: 255 for pixels that are meant as 0..1, 1 for pixels as they are.
    """

    name: ClassVar[str] = "normalize"
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    divisor: float = 255.0

    def __post_init__(self) -> None:
        if not self.mean or not self.std or self.divisor == 0 or 0 in self.std:
            raise UsageError(
                f"step 'normalize' has mean {list(self.mean)}, std {list(self.std)} and divisor {self.divisor}; "
                "one number or one a channel, std and divisor other than 0, are expected."
            )
        if len(self.mean) != len(self.std) and 1 not in (len(self.mean), len(self.std)):
            raise UsageError(
                f"step 'normalize' has {len(self.mean)} numbers in mean and {len(self.std)} in std; as many, or one, "
                "are expected."
            )
        factor, offset = self.factors(max(len(self.mean), len(self.std)))
        if not (np.isfinite(factor).all() and np.isfinite(offset).all()):
            raise UsageError(f"step 'normalize' with std {list(self.std)} gives numbers beyond float32.")

    def factors(self, channels: int) -> tuple[Floats, Floats]:
        """Return the factor and the offset of each channel, float32 [channels]."""
        mean, std = (
            np.broadcast_to(np.array(n, dtype=np.float64), (channels,)) for n in (self.mean, self.std)
        )
        with np.errstate(over="ignore"):
            return (1.0 / (self.divisor * std)).astype(np.float32), (-mean / std).astype(np.float32)

    def result(self, given: tuple[ValueType, ...]) -> ValueType:
        (have,) = given
        if have.kind != "image" or have.dtype not in ("uint8", "float32"):
            raise self.refuse(given, "a uint8 or float32 image")
        for what, numbers in (("mean", self.mean), ("std", self.std)):
            if len(numbers) not in (1, have.channels):
                raise self.refuse(given, f"an image of {len(numbers)} channels, as `{what}` has that many,")
        return have.of(*have.shape, dtype="float32")

    def apply(self, values: tuple[Array, ...], frame: Frame) -> Array:
        have = frame.given[0]
        factor, offset = self.factors(have.channels)
        if have.layout == "chw":
            factor, offset = factor[:, None, None], offset[:, None, None]
        made = floats(values[0]) * factor
        made += offset
        return np.asarray(made)


@dataclass(frozen=True, kw_only=True)
class Layout(Step):
    """Put the channels of an image first (chw) or last (hwc).

    Attributes:
        layout: of the result.
    """

    name: ClassVar[str] = "layout"
    layout: Literal["chw", "hwc"]

    def result(self, given: tuple[ValueType, ...]) -> ValueType:
        (have,) = given
        if have.kind != "image" or not have.layout:
            raise self.refuse(given, "an image")
        sides = have.height, have.width
        shape = (have.channels, *sides) if self.layout == "chw" else (*sides, have.channels)
        return replace(have, layout=self.layout, shape=shape)

    def apply(self, values: tuple[Array, ...], frame: Frame) -> Array:
        if frame.given[0].layout == self.layout:
            return values[0]
        axes = (2, 0, 1) if self.layout == "chw" else (1, 2, 0)
        return np.ascontiguousarray(values[0].transpose(axes))
