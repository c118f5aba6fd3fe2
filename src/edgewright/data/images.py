"""Read folders of PNG, JPEG and BMP files as the samples of an image classifier."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgewright.core.errors import DataError
from edgewright.core.tensors import Array, Layout, TensorSpec
from edgewright.data.lints import Lint
from edgewright.processing import media

IMAGE_RULE = (
    "images turned as EXIF says, centre-cropped to the model's aspect ratio, resized bilinearly, RGB or "
    "gray, float32 / 255 or raw uint8"
)
SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".bmp"))
_OTHER_IMAGES = frozenset((".gif", ".webp", ".tif", ".tiff", ".heic", ".avif"))
MAX_TOTAL_BYTES = 16 << 30


def read_image_folder(
    folder: Path, inputs: Sequence[TensorSpec]
) -> tuple[dict[str, Array], Array | None, list[Lint]]:
    """Return (inputs, labels, lints) of the images in `folder`.

    With sub-folders, each is a class and its index in sorted order is the label; a folder of images
    only has no labels. Hidden files and files of other kinds are passed over and counted in a lint.
    Preprocessing: IMAGE_RULE. Float inputs are 0..1, uint8 inputs are the pixels.

    Raises:
        DataError: the model does not take one image, no image is there, one is broken or above
            64 million pixels, or all together are above 16 GiB.
    """
    if len(inputs) != 1:
        raise DataError(f"{folder} gives one image a sample, but the model takes {[str(s) for s in inputs]}.")
    spec = inputs[0]
    layout, height, width, channels = _image_signature(spec, folder)
    files, labels, lints = list_samples(folder, SUFFIXES, what="PNG, JPEG or BMP image")
    size_bytes = len(files) * height * width * channels * np.dtype(spec.dtype).itemsize
    if size_bytes > MAX_TOTAL_BYTES:
        raise DataError(
            f"{folder} makes {size_bytes} bytes of samples; at most {MAX_TOTAL_BYTES}. Give fewer."
        )
    samples = np.empty((len(files), height, width, channels), dtype=spec.dtype)
    for index, file in enumerate(files):
        pixels = read_image(file, height=height, width=width, channels=channels)
        samples[index] = pixels if spec.dtype == "uint8" else pixels.astype(np.float32) / np.float32(255)
    if layout == "nchw":
        samples = np.ascontiguousarray(samples.transpose(0, 3, 1, 2))
    return {spec.name: samples}, labels, lints


def read_image_for(path: Path, spec: TensorSpec) -> Array:
    """Return the image at `path` as the input `spec` takes it, batch axis included, preprocessed like a folder's.

    Raises:
        DataError: the input is no image, or the file is not one that can be read.
    """
    layout, height, width, channels = _image_signature(spec, path)
    pixels = read_image(path, height=height, width=width, channels=channels)
    sample = pixels if spec.dtype == "uint8" else pixels.astype(np.float32) / np.float32(255)
    return np.ascontiguousarray(sample.transpose(2, 0, 1) if layout == "nchw" else sample)[None]


def _image_signature(spec: TensorSpec, folder: Path) -> tuple[Layout, int, int, int]:
    """Return (layout, height, width, channels) of an image input."""
    if len(spec.shape) != 4 or spec.shape[0] not in (1, None):
        raise DataError(f"{folder} gives images, but the model takes {spec}, which is no image of batch 1.")
    if spec.dtype not in ("float32", "uint8"):
        raise DataError(
            f"{folder} gives images, but the model takes {spec}. Images are given as float32 or "
            "uint8; write an .npz with the raw values for a quantized input."
        )
    _, *sizes = spec.shape
    layout = spec.layout
    if layout is None:
        is_first, is_last = sizes[0] in (1, 3), sizes[2] in (1, 3)
        if is_first == is_last:
            raise DataError(
                f"{folder}: which axis of {spec} holds the channels cannot be told from its shape. "
                "Name the layout (nchw or nhwc)."
            )
        layout = "nchw" if is_first else "nhwc"
    channels, height, width = sizes if layout == "nchw" else (sizes[2], sizes[0], sizes[1])
    if height is None or width is None or channels not in (1, 3):
        raise DataError(
            f"{folder}: {spec} as {layout} is no image of fixed size with 1 or 3 channels. "
            "Fix the input shape, or write an .npz."
        )
    return layout, height, width, channels


def list_samples(
    folder: Path, suffixes: frozenset[str], *, what: str
) -> tuple[list[Path], Array | None, list[Lint]]:
    """Return (files, labels, lints) of the files with one of `suffixes`; labels are indices of sub-folders, if any.

    Raises:
        DataError: there is none, or an image of a kind that is not read.
    """
    entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    classes = [entry for entry in entries if entry.is_dir()]
    groups = [sorted(f for f in c.iterdir() if not f.name.startswith(".")) for c in classes] or [entries]
    files: list[Path] = []
    numbers: list[int] = []
    passed_over = 0
    for number, group in enumerate(groups):
        found = [file for file in group if file.suffix.lower() in suffixes and file.is_file()]
        unread = [file for file in group if file.suffix.lower() in _OTHER_IMAGES - suffixes]
        if unread:
            raise DataError(f"{unread[0]} is no {what} file. Convert or remove it.")
        passed_over += len(group) - len(found)
        files += found
        numbers += [number] * len(found)
    if not files:
        raise DataError(f"{folder} holds no {what} (in sub-folders, one per class). Check the path.")
    lints = []
    if passed_over:
        message = f"{folder}: {passed_over} entries that are no {what} were passed over"
        lints.append(Lint(code="data-other-files", message=message))
    empty = [classes[number].name for number in range(len(classes)) if number not in set(numbers)]
    if empty:
        lints.append(Lint(code="data-empty-class", message=f"{folder}: classes without a file: {empty[:8]}"))
    return files, np.array(numbers, dtype=np.int64) if classes else None, lints


def read_image(path: Path, *, height: int, width: int, channels: int) -> Array:
    """Return the image at `path` as uint8 [height, width, channels], preprocessed by IMAGE_RULE.

    Raises:
        DataError: no image, broken, or too large; see `processing.media.read_image`.
    """
    from PIL import Image

    upright = media.read_image(path, order="rgb" if channels == 3 else "grey")
    turned = Image.fromarray(upright if channels == 3 else upright[..., 0])
    have_width, have_height = turned.size
    scale = min(have_width / width, have_height / height)
    left, top = (have_width - width * scale) / 2, (have_height - height * scale) / 2
    box = (left, top, left + width * scale, top + height * scale)
    resized = turned.resize((width, height), Image.Resampling.BILINEAR, box=_inside(box, turned.size))
    pixels = np.asarray(resized, dtype=np.uint8)
    return pixels.reshape(height, width, channels)


def _inside(
    box: tuple[float, float, float, float], size: tuple[int, int]
) -> tuple[float, float, float, float]:
    """Return `box` without the rounding that would put it a hair outside the image."""
    return max(box[0], 0.0), max(box[1], 0.0), min(box[2], float(size[0])), min(box[3], float(size[1]))
