"""What flows between steps: one array, and the record that says what it holds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

from edgewright.core.errors import UsageError
from edgewright.core.tensors import DTYPES, MAX_RANK, TensorSpec

Kind = Literal[
    "image",  # [height, width, channels], or [channels, height, width] where layout is "chw"
    "audio",  # [samples], mono, float32, -1..1
    "frames",  # [frames, samples]: windows of audio
    "spectrum",  # [..., bins, 2]: complex, the real part first
    "series",  # [time, channels]
    "landmarks",  # [points, 2 or 3]: x, y, perhaps z, in pixels of the image
    "text",  # no array: a str, which only a tokenizer takes
    "tensor",  # anything that a model takes or gives
    "classes",  # [k, 2]: index of the class, score; the best first
    "candidates",  # [n, 4 + classes (+ 3 a keypoint)]: x0, y0, x1, y1, a score for each class
    "boxes",  # [n, 6 (+ 3 a keypoint)]: x0, y0, x1, y1, score, index of the class; the best first
    "mask",  # [height, width], uint8 or int32: index of the class
    "keypoints",  # [points, 3]: x, y, score
    "codes",  # [n] int32: classes in time (CTC), or tokens
]
KINDS: tuple[str, ...] = get_args(Kind)
RAW_KINDS: tuple[str, ...] = ("image", "audio", "series", "landmarks", "text", "tensor")
Order = Literal["rgb", "bgr", "grey", "rgba", ""]
RAW_DTYPES = ("uint8", "int8", "int16", "int32", "int64", "float32")
MAX_SIDE = 16_384
MAX_VALUES = 1 << 28


@dataclass(frozen=True, kw_only=True)
class ValueType:
    """What one value of a specification holds.

    Attributes:
        shape: of the array, without a batch axis; None is a length that is known when it runs.
        dtype: of the array.
        order: of an image's channels: "rgb", "bgr", "grey", "rgba".
        layout: of an image: "hwc" or "chw".
        rate_hz: of audio and of what was made of it; 0 where it may be any.
        classes: of candidates and of scores, where it is known.
    """

    kind: Kind
    shape: tuple[int | None, ...]
    dtype: str
    order: Order = ""
    layout: Literal["hwc", "chw", ""] = ""
    rate_hz: int = 0
    classes: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS or self.dtype not in DTYPES:
            raise UsageError(f"a value is {self.kind!r} of {self.dtype!r}; no such kind or dtype is known.")
        if len(self.shape) > MAX_RANK:
            raise UsageError(f"a value has {len(self.shape)} axes; at most {MAX_RANK} are expected.")
        if any(size is not None and not 0 <= size <= MAX_VALUES for size in self.shape):
            raise UsageError(f"{self} is too large: a dimension has 0..{MAX_VALUES} elements.")
        known = 1
        for size in self.shape:
            known *= 1 if size is None else size
        if known > MAX_VALUES:
            raise UsageError(f"{self} has {known} elements; at most {MAX_VALUES} are expected.")

    def of(self, *shape: int | None, dtype: str = "", kind: Kind | None = None) -> ValueType:
        """Return the same type with another shape, and perhaps another dtype and kind."""
        return replace(self, shape=shape, dtype=dtype or self.dtype, kind=kind or self.kind)

    @property
    def height(self) -> int | None:
        """Rows of an image."""
        return self.shape[1] if self.layout == "chw" else self.shape[0]

    @property
    def width(self) -> int | None:
        """Columns of an image."""
        return self.shape[2] if self.layout == "chw" else self.shape[1]

    @property
    def channels(self) -> int:
        """Channels of an image."""
        size = self.shape[0 if self.layout == "chw" else 2]
        assert size is not None
        return size

    def __str__(self) -> str:
        dims = ", ".join("?" if size is None else str(size) for size in self.shape)
        words = " ".join(word for word in (self.order, self.layout) if word)
        rate = f" at {self.rate_hz} Hz" if self.rate_hz else ""
        return f"{self.kind} {self.dtype}[{dims}]{' ' + words if words else ''}{rate}"


def image_type(order: Order, *, height: int | None = None, width: int | None = None) -> ValueType:
    """Return the type of raw pixels, uint8 [height, width, channels], as a decoder or a camera gives them."""
    channels = {"grey": 1, "rgba": 4}.get(order, 3)
    return ValueType(kind="image", shape=(height, width, channels), dtype="uint8", order=order, layout="hwc")


def tensor_type(spec: TensorSpec) -> ValueType:
    """Return the type of a model's tensor as values hold it: a leading axis of 1 or of unknown size is the batch's."""
    shape = spec.shape[1:] if spec.shape and spec.shape[0] in (1, None) else spec.shape
    return ValueType(kind="tensor", shape=shape, dtype=spec.dtype)


def fits(have: ValueType, want: ValueType) -> bool:
    """Return whether a value of type `have` can be given to a tensor of type `want`."""
    return (
        have.dtype == want.dtype
        and len(have.shape) == len(want.shape)
        and all(a is None or b is None or a == b for a, b in zip(have.shape, want.shape, strict=True))
    )
