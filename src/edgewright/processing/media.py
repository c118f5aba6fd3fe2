"""Read images from files: upright, 8 bits a channel, in the order that a specification asks for."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgewright.core.errors import DataError, UnavailableError
from edgewright.core.tensors import Array
from edgewright.processing.images import Channels
from edgewright.processing.values import MAX_SIDE, Order

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

MAX_PIXELS = 64_000_000
_FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "GIF")
_MAX_BYTES = 512 << 20
_WHITE = (255, 255, 255)
_ORIENTATION = 0x0112  # Exif 2.32, section 4.6.4


def read_image(source: Path | bytes, *, order: Order = "rgb", background: tuple[int, ...] = _WHITE) -> Array:
    """Return the image in a PNG, JPEG, BMP, WebP or GIF file as uint8 [height, width, channels].

    It is turned upright as its EXIF says, where that can be read. Of an animation it is the first frame. Of 16 bits a
    channel the upper 8 are kept. CMYK is converted by its plain formula, and colour profiles are not applied. What is
    transparent is laid on `background`, unless the order is "rgba". Sizes are checked before anything is decoded.

    Args:
        source: the path of a file, or its bytes.
        order: of the channels: rgb, bgr, grey or rgba; grey by the step "channels".
        background: red, green and blue.
    Raises:
        DataError: no such file, no image of these formats, broken, empty, with a side above 16384 or above 64 million
            pixels.
    """
    what = str(source) if isinstance(source, Path) else f"an image of {len(source)} bytes"
    try:
        from PIL import Image
    except ImportError as err:
        raise UnavailableError("reading images needs Pillow: pip install pillow") from err
    encoded = _read(source, what)
    try:
        with warnings.catch_warnings():
            # Broken EXIF and the like; the bound on pixels below is stricter than Pillow's own, which warns only.
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(encoded), formats=_FORMATS) as image:
                _check_size(image, what)
                image.load()
                array, have = _pixels(_upright(image), what)
    except DataError:
        raise
    except Exception as err:  # Pillow's plugins raise whatever a broken file makes them run into
        # What Pillow does not know it names by the address of the stream.
        reason = "unknown format" if "BytesIO" in str(err) else str(err).rstrip(". ")
        raise DataError(
            f"{what} cannot be decoded as {', '.join(_FORMATS)}: {reason}. Remove or replace it."
        ) from err
    return _ordered(array, have, order, background)


def _read(source: Path | bytes, what: str) -> bytes:
    if isinstance(source, bytes):
        encoded = source
    else:
        try:
            if source.exists() and not source.is_file():  # a pipe would be waited for
                raise DataError(f"{what} is no file. Give an image.")
            with source.open("rb") as stream:
                encoded = stream.read(_MAX_BYTES + 1)
        except (OSError, ValueError) as err:  # a ValueError is of a name that no file can have
            reason = err.strerror if isinstance(err, OSError) else None
            raise DataError(f"{what} cannot be read: {reason or err}. Check the path.") from err
    if not encoded:
        raise DataError(f"{what} is empty. Remove or replace it.")
    if len(encoded) > _MAX_BYTES:
        raise DataError(f"{what} has more than {_MAX_BYTES} bytes. Convert or remove it.")
    return encoded


def _check_size(image: PillowImage, what: str) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE or min(width, height) < 1:
        raise DataError(
            f"{what} has {width}x{height} pixels; sides of 1..{MAX_SIDE} and at most {MAX_PIXELS} pixels are decoded. "
            "Make it smaller."
        )


def _upright(image: PillowImage) -> PillowImage:
    """Return the decoded image turned as its EXIF says; as it is where that cannot be read, as viewers do."""
    from PIL.Image import Transpose

    turns = {
        2: Transpose.FLIP_LEFT_RIGHT, 3: Transpose.ROTATE_180, 4: Transpose.FLIP_TOP_BOTTOM, 5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270, 7: Transpose.TRANSVERSE, 8: Transpose.ROTATE_90,
    }  # fmt: skip
    try:
        orientation = image.getexif().get(_ORIENTATION)
    except Exception:  # whatever Pillow's readers of EXIF run into: it says nothing of the pixels
        return image
    turn = turns.get(orientation) if isinstance(orientation, int) else None
    return image if turn is None else image.transpose(turn)


def _pixels(image: PillowImage, what: str) -> tuple[Array, Order]:
    """Return (uint8 [height, width, channels], their order) of a decoded image of any mode."""
    if image.mode.startswith("I;16"):
        deep = np.asarray(image)
        return (deep >> 8).astype(np.uint8)[..., None], "grey"
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        return np.array(image.convert("RGBA"), dtype=np.uint8), "rgba"
    if image.mode in ("1", "L"):
        return np.array(image.convert("L"), dtype=np.uint8)[..., None], "grey"
    if image.mode in ("P", "RGB", "RGBX", "CMYK", "YCbCr"):
        return np.array(image.convert("RGB"), dtype=np.uint8), "rgb"
    raise DataError(f"{what} has pixels of the kind {image.mode!r}; 8 or 16 bits a channel are expected.")


def _ordered(array: Array, have: Order, want: Order, background: tuple[int, ...]) -> Array:
    if want == "":
        want = "rgb"
    if have == want:
        return array
    if want == "rgba":
        colour = Channels(order="rgb").make(array, have)
        return np.concatenate([colour, np.full((*colour.shape[:2], 1), 255, dtype=np.uint8)], axis=2)
    return Channels(order=want, background=background).make(array, have)
