"""Steps that change an image's size: resize, the short side, letterbox."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np

from edgewright.core.errors import DataError, UsageError
from edgewright.core.tensors import Array
from edgewright.processing.resampling import Corners, Method, resample
from edgewright.processing.step import Frame, Geometry, Step
from edgewright.processing.values import MAX_SIDE, ValueType

_MAX_PIXELS = 1 << 26


@dataclass(frozen=True, kw_only=True)
class Resize(Step):
    """Make an image, or a float32 tensor [height, width, channels], of the given size; its aspect ratio may change.

    Equal, within one step of 255 for uint8, to:

    - bilinear: OpenCV INTER_LINEAR; torch bilinear, antialias=False.
    - bicubic: OpenCV INTER_CUBIC; torch bicubic, antialias=False (a = -0.75).
    - bilinear or bicubic with antialias: Pillow BILINEAR and BICUBIC (a = -0.5), to the byte, one direction after the
      other. Pillow 13 takes the rows first for some sizes; this step always takes the columns first.
    - area: OpenCV INTER_AREA, where both sides shrink.
    - nearest: Pillow NEAREST (half_pixel; a tie between two pixels takes the latter), OpenCV INTER_NEAREST and TF1
      (asymmetric).
    - bilinear with corners align or asymmetric: TF1 resize_bilinear with align_corners=True, or neither that nor
      half_pixel_centers.

    Attributes:
        height: of the result.
        width: of the result.
        method: nearest, bilinear, bicubic, area.
        antialias: filter over the whole area of an output pixel where the image shrinks; bilinear and bicubic only.
        corners: where pixels lie; anything but half_pixel is for nearest, bilinear and bicubic without antialias.
    """

    name: ClassVar[str] = "resize"
    height: int
    width: int
    method: Method = "bilinear"
    antialias: bool = False
    corners: Corners = "half_pixel"

    def __post_init__(self) -> None:
        check_side(self.name, "height", self.height)
        check_side(self.name, "width", self.width)
        check_method(self.name, self.method, self.antialias)
        if self.corners != "half_pixel" and (self.antialias or self.method == "area"):
            raise UsageError(
                f"step 'resize' has corners {self.corners!r} with a filter; half_pixel is expected there."
            )

    def result(self, given: tuple[ValueType, ...]) -> ValueType:
        have = require_pixels(self, given)
        return have.of(self.height, self.width, have.shape[2])

    def apply(self, values: tuple[Array, ...], frame: Frame) -> Array:
        return resample(
            values[0], self.height, self.width,
            method=self.method, antialias=self.antialias, corners=self.corners,
        )  # fmt: skip

    def move(self, geometry: Geometry) -> Geometry:
        return scaled(geometry, self.height, self.width)


@dataclass(frozen=True, kw_only=True)
class ShortSide(Step):
    """Resize so that the shorter side has `size` pixels; the longer one has floor(size * long / short).

    This is `Resize(size)` of torchvision, and `shortest_edge` of Hugging Face's image processors.

    Attributes:
        size: of the shorter side, in pixels.
        method: as of "resize".
        antialias: as of "resize".
    """

    name: ClassVar[str] = "short_side"
    size: int
    method: Method = "bilinear"
    antialias: bool = False

    def __post_init__(self) -> None:
        check_side(self.name, "size", self.size)
        check_method(self.name, self.method, self.antialias)

    def sides(self, height: int, width: int) -> tuple[int, int]:
        """Return the height and width of the result for an image of `height` x `width`.

        Raises:
            DataError: the longer side, or the number of pixels, would pass its limit.
        """
        short = min(height, width)
        made = height * self.size // short, width * self.size // short
        if max(made) > MAX_SIDE or made[0] * made[1] > _MAX_PIXELS:
            raise DataError(
                f"an image of {width}x{height} pixels is {made[1]}x{made[0]} once its shorter side is {self.size}; "
                f"sides of up to {MAX_SIDE} and at most {_MAX_PIXELS} pixels are expected. Crop it first."
            )
        return made

    def result(self, given: tuple[ValueType, ...]) -> ValueType:
        have = require_pixels(self, given)
        if have.height is None or have.width is None:
            return have.of(None, None, have.shape[2])
        return have.of(*self.sides(have.height, have.width), have.shape[2])

    def apply(self, values: tuple[Array, ...], frame: Frame) -> Array:
        height, width = self.sides(*values[0].shape[:2])
        return resample(
            values[0], height, width, method=self.method, antialias=self.antialias, corners="half_pixel"
        )

    def move(self, geometry: Geometry) -> Geometry:
        return scaled(geometry, *self.sides(geometry.height, geometry.width))


@dataclass(frozen=True, kw_only=True)
class Letterbox(Step):
    """Resize to fit into the given size with the aspect ratio kept, and fill the rest.

    The side that fits last has its full length, the other one round(side * ratio), half up, 1 at least. In the
    centre, the border on the left and at the top is the smaller one where it is odd. This is Ultralytics' LetterBox.

    Attributes:
        height: of the result.
        width: of the result.
        fill: the border's value, one for all channels or one each.
        anchor: where the image lies.
        method: as of "resize".
        antialias: as of "resize".
        grow: enlarge what is smaller.
    """

    name: ClassVar[str] = "letterbox"
    height: int
    width: int
    fill: tuple[int, ...] = (114,)
    anchor: Literal["centre", "top_left"] = "centre"
    method: Method = "bilinear"
    antialias: bool = False
    grow: bool = True

    def __post_init__(self) -> None:
        check_side(self.name, "height", self.height)
        check_side(self.name, "width", self.width)
        check_method(self.name, self.method, self.antialias)
        if not self.fill or not all(0 <= value <= 255 for value in self.fill):
            raise UsageError(f"step 'letterbox' has fill {list(self.fill)}; numbers of 0..255 are expected.")

    def place(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Return (top, left, height, width) of where an image of `height` x `width` lies in the result."""
        if not self.grow and height <= self.height and width <= self.width:
            inner = height, width
        elif self.width * height <= self.height * width:
            inner = max((2 * height * self.width + width) // (2 * width), 1), self.width
        else:
            inner = self.height, max((2 * width * self.height + height) // (2 * height), 1)
        if self.anchor == "top_left":
            return 0, 0, *inner
        return (self.height - inner[0]) // 2, (self.width - inner[1]) // 2, *inner

    def result(self, given: tuple[ValueType, ...]) -> ValueType:
        have = require_pixels(self, given)
        if len(self.fill) not in (1, have.shape[2]):
            raise self.refuse(
                given, f"an image of {len(self.fill)} channels, as `fill` has that many numbers,"
            )
        return have.of(self.height, self.width, have.shape[2])

    def apply(self, values: tuple[Array, ...], frame: Frame) -> Array:
        image = values[0]
        top, left, height, width = self.place(*image.shape[:2])
        made = np.empty((self.height, self.width, image.shape[2]), dtype=image.dtype)
        made[:] = np.array(self.fill, dtype=image.dtype)
        made[top : top + height, left : left + width] = resample(
            image, height, width, method=self.method, antialias=self.antialias, corners="half_pixel"
        )
        return made

    def move(self, geometry: Geometry) -> Geometry:
        top, left, height, width = self.place(geometry.height, geometry.width)
        inner = scaled(geometry, height, width)
        return replace(
            inner,
            height=self.height,
            width=self.width,
            offset_x=inner.offset_x + left,
            offset_y=inner.offset_y + top,
        )


def scaled(geometry: Geometry, height: int, width: int) -> Geometry:
    """Return where the pixels lie after a resize to `height` x `width`."""
    ratio_x, ratio_y = width / geometry.width, height / geometry.height
    return replace(
        geometry,
        height=height,
        width=width,
        scale_x=geometry.scale_x * ratio_x,
        scale_y=geometry.scale_y * ratio_y,
        offset_x=geometry.offset_x * ratio_x,
        offset_y=geometry.offset_y * ratio_y,
    )


def require_pixels(step: Step, given: tuple[ValueType, ...]) -> ValueType:
    """Return the type of an image or tensor [height, width, channels] whose pixels can be moved.

    Raises:
        UsageError: it is none.
    """
    (have,) = given
    is_image = have.kind == "image" and have.layout == "hwc" and have.dtype in ("uint8", "float32")
    is_tensor = have.kind == "tensor" and len(have.shape) == 3 and have.dtype == "float32"
    if not is_image and not is_tensor:
        raise step.refuse(given, "a uint8 or float32 image, hwc,")
    if have.shape[2] is None:
        raise step.refuse(given, "a known number of channels")
    return have


def check_side(step: str, what: str, side: int) -> None:
    """Raise UsageError where `side` is no side of an image."""
    if not 1 <= side <= MAX_SIDE:
        raise UsageError(f"step {step!r} has {what} {side}; 1..{MAX_SIDE} pixels are expected.")


def check_method(step: str, method: Method, antialias: bool) -> None:
    """Raise UsageError where `method` has no antialias."""
    if antialias and method not in ("bilinear", "bicubic"):
        raise UsageError(
            f"step {step!r} has antialias with method {method!r}; bilinear or bicubic is expected there."
        )
