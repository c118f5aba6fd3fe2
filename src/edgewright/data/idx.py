"""Read IDX files (the format of MNIST and Fashion-MNIST), plain or gzip.

Source of the format: magic 0x00 0x00 <type> <rank>, then `rank` big-endian uint32 sizes, then the values.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from edgewright.core.errors import DataError
from edgewright.core.tensors import Array, TensorSpec
from edgewright.data.fit import matches, sample_shapes

_TYPES: dict[int, np.dtype[np.generic]] = {
    0x08: np.dtype("u1"),
    0x09: np.dtype("i1"),
    0x0B: np.dtype(">i2"),
    0x0C: np.dtype(">i4"),
    0x0D: np.dtype(">f4"),
    0x0E: np.dtype(">f8"),
}
_MAX_RANK = 4
MAX_IDX_BYTES = 4 << 30
_IMAGES = "-images-idx3-ubyte"
_LABELS = "-labels-idx1-ubyte"


def is_idx(path: Path) -> bool:
    """Return whether the name of `path` is that of an IDX file."""
    name = path.name.removesuffix(".gz")
    return name.endswith(("-ubyte", ".idx")) or "-idx" in name


def list_idx_prefixes(folder: Path) -> list[str]:
    """Return the prefixes ("t10k", "train") of the IDX image files in `folder`, sorted."""
    names = {path.name.removesuffix(".gz") for path in folder.iterdir()}
    return sorted(name.removesuffix(_IMAGES) for name in names if name.endswith(_IMAGES))


def find_idx(folder: Path, prefix: str) -> Path:
    """Return the IDX images file of `prefix` in `folder`.

    Raises:
        DataError: there is none.
    """
    for suffix in ("", ".gz"):
        path = folder / f"{prefix}{_IMAGES}{suffix}"
        if path.is_file():
            return path
    known = list_idx_prefixes(folder)
    raise DataError(
        f"{folder} has no file {prefix}{_IMAGES} (or .gz). "
        + (f"Choose one of: {', '.join(known)}." if known else "It has no IDX images at all.")
    )


def read_idx(path: Path) -> Array:
    """Return the array of the IDX file at `path` in native byte order.

    Raises:
        DataError: wrong magic, unknown type, sizes beyond 4 GiB, truncated, or with bytes left over.
    """
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as stream:
            magic = stream.read(4)
            if (
                len(magic) < 4
                or magic[:2] != b"\0\0"
                or magic[2] not in _TYPES
                or not 1 <= magic[3] <= _MAX_RANK
            ):
                raise DataError(
                    f"{path} starts with {magic.hex()!r}, which is no IDX magic (00 00 <type> <rank>). "
                    "Check the file."
                )
            dtype = _TYPES[magic[2]]
            header = stream.read(4 * magic[3])
            if len(header) != 4 * magic[3]:
                raise DataError(f"{path} ends inside its header. Download it again.")
            shape = struct.unpack(f">{magic[3]}I", header)
            size_bytes = math.prod(shape) * dtype.itemsize
            if size_bytes > MAX_IDX_BYTES:
                raise DataError(
                    f"{path} promises {list(shape)}, {size_bytes} bytes; at most {MAX_IDX_BYTES} are read."
                )
            # read(size) of a short stream gives what there is; nothing is allocated on the header's word.
            content = stream.read(size_bytes + 1)
    except (OSError, EOFError, zlib.error) as err:
        raise DataError(f"{path} cannot be read: {err}. Download it again.") from err
    if len(content) != size_bytes:
        kind = "more" if len(content) > size_bytes else f"{len(content)}"
        raise DataError(
            f"{path} promises {list(shape)}, {size_bytes} bytes, but holds {kind}. Download it again."
        )
    array = np.frombuffer(content, dtype=dtype).reshape(shape)
    return array.astype(dtype.newbyteorder("="))


def read_idx_pair(images: Path) -> tuple[Array, Array]:
    """Return (images [n, rows, columns], labels int64 [n]) of an images file and the labels file beside it.

    Raises:
        DataError: no labels file beside it, or one of them is broken.
    """
    if "-labels-" in images.name:
        raise DataError(f"{images} holds labels. Name the images file; its labels are found beside it.")
    stem = images.name.removesuffix(".gz").replace("-images-idx3-", "-labels-idx1-")
    if stem == images.name.removesuffix(".gz"):
        raise DataError(
            f"{images} is not named <prefix>{_IMAGES}(.gz), so its labels cannot be found. Rename both files."
        )
    suffixes = (".gz", "") if images.suffix == ".gz" else ("", ".gz")
    beside = [images.with_name(stem + suffix) for suffix in suffixes]
    labels = next((path for path in beside if path.is_file()), None)
    if labels is None:
        raise DataError(f"{images} has no labels file beside it: {stem} or {stem}.gz is expected.")
    pixels, numbers = read_idx(images), read_idx(labels)
    if pixels.dtype != np.uint8 or pixels.ndim != 3:
        raise DataError(
            f"{images} holds {pixels.dtype}{list(pixels.shape)}; uint8 images [n, rows, columns] are read."
        )
    if numbers.ndim != 1 or numbers.dtype.kind not in "iu":
        raise DataError(
            f"{labels} holds {numbers.dtype}{list(numbers.shape)}; integer labels [n] are expected."
        )
    return pixels, numbers.astype(np.int64)


def shape_idx_images(images: Array, spec: TensorSpec, *, path: Path) -> tuple[Array, str]:
    """Return gray images [n, rows, columns] as `spec` takes them, and a note of what was done.

    One channel has one order of pixels, so a channel axis or flattening cannot be wrong.

    Raises:
        DataError: the model takes other sizes or neither float32 nor uint8.
    """
    rows, columns = images.shape[1:]
    sample = sample_shapes(spec)[0]
    known = ((1, rows, columns), (rows, columns, 1), (rows, columns), (rows * columns,))
    shape = next((shape for shape in known if matches(shape, sample)), None)
    if shape is None:
        raise DataError(f"{path} holds images of {rows}x{columns} gray pixels, but the model takes {spec}.")
    if spec.dtype == "float32":
        array = (images.astype(np.float32) / np.float32(255)).reshape(len(images), *shape)
        return array, f"pixels / 255, samples of shape {list(shape)}"
    if spec.dtype == "uint8":
        return images.reshape(len(images), *shape), f"raw pixels, samples of shape {list(shape)}"
    raise DataError(
        f"{path} holds uint8 pixels, but the model takes {spec}. Write an .npz with the {spec.dtype} values "
        "that the model takes (for a quantized input: round(x / scale) + zero_point)."
    )
