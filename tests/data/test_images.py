"""Folders of images: classes by name, one documented preprocessing, and no decoding of bombs."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgewright.core.errors import DataError
from edgewright.core.tensors import Array, TensorSpec
from edgewright.data.datasets import load_dataset
from edgewright.data.images import read_image


def _spec(*shape: int | None, dtype: str = "uint8", layout: str | None = None) -> TensorSpec:
    return TensorSpec(
        name="x", shape=shape, dtype=dtype, layout=layout if layout in ("nchw", "nhwc") else None
    )


def _save(path: Path, pixels: Array) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def folder(tmp_path: Path, rng: np.random.Generator) -> Path:
    for name, kinds in (("dog", ("bmp", "png")), ("cat", ("png", "jpg", "bmp"))):
        for index, kind in enumerate(kinds):
            _save(tmp_path / name / f"{index}.{kind}", rng.integers(0, 256, (8, 8, 3)).astype(np.uint8))
    return tmp_path


def test_classes_are_sorted_folders_and_pixels_are_exact(folder: Path) -> None:
    (folder / ".cache").mkdir()
    (folder / "cat" / ".DS_Store").write_text("x")
    (folder / "cat" / "notes.txt").write_text("x")
    dataset = load_dataset(str(folder), [_spec(1, 8, 8, 3)])
    assert dataset.labels is not None and dataset.labels.tolist() == [0, 0, 0, 1, 1]
    np.testing.assert_array_equal(dataset.inputs["x"][0], np.asarray(Image.open(folder / "cat" / "0.png")))
    assert [lint.code for lint in dataset.lints] == ["data-other-files"]
    assert "centre-cropped" in dataset.description
    floats = load_dataset(str(folder), [_spec(None, 3, 8, 8, dtype="float32")]).inputs["x"]
    np.testing.assert_array_equal(
        floats, dataset.inputs["x"].transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)
    )


def test_a_flat_folder_has_no_labels_and_an_empty_class_is_told(folder: Path) -> None:
    assert load_dataset(str(folder / "cat"), [_spec(1, 8, 8, 3)]).labels is None
    (folder / "ant").mkdir()
    dataset = load_dataset(str(folder), [_spec(1, 8, 8, 3)])
    assert dataset.labels is not None and dataset.labels.tolist() == [1, 1, 1, 2, 2]
    assert [lint.code for lint in dataset.lints] == ["data-empty-class"]


def test_the_layout_is_taken_from_the_signature_or_asked_for(folder: Path) -> None:
    with pytest.raises(DataError, match="Name the layout"):
        load_dataset(str(folder), [_spec(1, 3, 8, 3)])
    shape = load_dataset(str(folder), [_spec(1, 3, 8, 3, layout="nhwc")]).inputs["x"].shape
    assert shape == (5, 3, 8, 3)


def test_the_crop_is_central_and_gray_is_luma(tmp_path: Path) -> None:
    pixels = np.zeros((4, 12, 3), np.uint8)
    pixels[:, 4:8] = (200, 100, 50)
    _save(tmp_path / "wide.png", pixels)
    _save(tmp_path / "tall.png", pixels.transpose(1, 0, 2))
    for name in ("wide.png", "tall.png"):
        found = read_image(tmp_path / name, height=4, width=4, channels=3)
        np.testing.assert_array_equal(found, np.broadcast_to(np.uint8([200, 100, 50]), (4, 4, 3)))
    gray = read_image(tmp_path / "wide.png", height=4, width=4, channels=1)
    assert (
        gray.shape == (4, 4, 1)
        and abs(int(gray[0, 0, 0]) - round(0.299 * 200 + 0.587 * 100 + 0.114 * 50)) <= 1
    )
    # Aspect ratio 3:1 of the model: nothing is cropped from a 12x4 image.
    np.testing.assert_array_equal(read_image(tmp_path / "wide.png", height=4, width=12, channels=3), pixels)


def test_exif_orientation_is_followed(tmp_path: Path) -> None:
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:4] = 255
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(pixels).save(tmp_path / "turned.jpg", exif=exif, quality=95)
    found = read_image(tmp_path / "turned.jpg", height=8, width=8, channels=3)
    assert found[:3].max() < 60 and found[5:].min() > 200


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (_spec(1, 8, 8, 3, dtype="int8"), "raw values for a quantized input"),
        (_spec(1, 192), "no image of batch 1"),
        (_spec(8, 8, 8, 3), "no image of batch 1"),
        (_spec(1, None, None, 3), "fixed size"),
        (_spec(1, 4, 8, 8, layout="nchw"), "1 or 3 channels"),
    ],
)
def test_models_that_take_no_image(folder: Path, spec: TensorSpec, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_dataset(str(folder), [spec])


def test_broken_and_foreign_files_are_named(folder: Path) -> None:
    whole = (folder / "cat" / "0.png").read_bytes()
    jpeg = (folder / "cat" / "1.jpg").read_bytes()
    for name, content in (
        ("0.png", whole[:60]),
        ("0.png", b""),
        ("0.png", whole[:45] + b"\xff" * 20 + whole[65:]),
        ("1.jpg", jpeg[: len(jpeg) // 2]),
        ("1.jpg", b"GIF89a" + bytes(40)),
    ):
        keep = (folder / "cat" / name).read_bytes()
        (folder / "cat" / name).write_bytes(content)
        with pytest.raises(DataError, match=f"{name} (cannot be decoded|is empty)"):
            load_dataset(str(folder), [_spec(1, 8, 8, 3)])
        (folder / "cat" / name).write_bytes(keep)
    (folder / "dog" / "3.webp").write_bytes(b"x")
    with pytest.raises(DataError, match=r"3\.webp is no PNG"):
        load_dataset(str(folder), [_spec(1, 8, 8, 3)])


def test_no_image_at_all(tmp_path: Path) -> None:
    (tmp_path / "class").mkdir()
    with pytest.raises(DataError, match="holds no PNG"):
        load_dataset(str(tmp_path), [_spec(1, 8, 8, 3)])


@pytest.mark.parametrize("side", [9000, 12_000, 60_000])
def test_a_small_file_of_many_pixels_is_not_decoded(tmp_path: Path, side: int) -> None:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    path = tmp_path / "bomb.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(64)))
        + chunk(b"IEND", b"")
    )
    with pytest.raises(DataError, match=r"pixels"):
        read_image(path, height=8, width=8, channels=3)


def test_real_photographs(assets: Path) -> None:
    dataset = load_dataset(str(assets / "data" / "coral-images"), [_spec(1, 64, 64, 3)])
    assert dataset.count == 9 and dataset.labels is None
    assert [lint.code for lint in dataset.lints] == ["data-other-files"]
    assert 20 < dataset.inputs["x"].std() < 100
