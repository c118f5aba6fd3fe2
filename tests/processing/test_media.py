"""Images of all kinds come out upright with 8 bits a channel, or one error says what is wrong."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgewright.core.errors import DataError
from edgewright.processing.media import MAX_PIXELS, read_image

RNG = np.random.default_rng(7)
COLOURS = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)  # type: ignore[arg-type]
    return stream.getvalue()


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, depth: int, colour: int, rows: bytes) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        [png_chunk(b"IHDR", head), png_chunk(b"IDAT", zlib.compress(rows)), png_chunk(b"IEND", b"")]
    )


@pytest.mark.parametrize("form", ["PNG", "BMP", "WEBP"])
def test_lossless_formats_give_their_pixels(form: str) -> None:
    options = {"lossless": True} if form == "WEBP" else {}
    data = encoded(Image.fromarray(COLOURS), form, **options)
    assert np.array_equal(read_image(data), COLOURS)
    assert np.array_equal(read_image(data, order="bgr"), COLOURS[..., ::-1])
    grey = np.asarray(Image.fromarray(COLOURS).convert("L"))[..., None]
    assert np.array_equal(read_image(data, order="grey"), grey)
    assert np.array_equal(read_image(data, order="rgba")[..., 3], np.full((5, 7), 255))


def test_a_path_and_its_bytes_are_the_same(tmp_path: Path) -> None:
    Image.fromarray(COLOURS).save(tmp_path / "a.jpg", quality=90)
    file = tmp_path / "a.jpg"
    assert np.array_equal(read_image(file), read_image(file.read_bytes()))
    assert np.array_equal(read_image(file), np.asarray(Image.open(file)))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_the_image_upright(orientation: int) -> None:
    # How the camera stored the upright picture for each orientation (Exif 2.32, tag 0x0112).
    stored = {
        1: COLOURS, 2: COLOURS[:, ::-1], 3: COLOURS[::-1, ::-1], 4: COLOURS[::-1],
        5: COLOURS.transpose(1, 0, 2), 6: np.rot90(COLOURS), 7: COLOURS.transpose(1, 0, 2)[::-1, ::-1],
        8: np.rot90(COLOURS, 3),
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(np.ascontiguousarray(stored)), "PNG", exif=exif)
    assert np.array_equal(read_image(data), COLOURS)


def test_sixteen_bits_keep_the_upper_eight() -> None:
    deep = RNG.integers(0, 65536, (4, 6), dtype=np.uint16)
    data = encoded(Image.fromarray(deep), "PNG")
    assert np.array_equal(read_image(data, order="grey")[..., 0], deep >> 8)
    colours = RNG.integers(0, 65536, (4, 6, 3), dtype=np.uint16)
    rows = b"".join(b"\0" + row.tobytes() for row in colours.astype(">u2"))
    assert np.array_equal(read_image(png(6, 4, 16, 2, rows)), colours >> 8)


def test_transparency_is_laid_on_the_background() -> None:
    clear = np.dstack([COLOURS, np.zeros((5, 7), np.uint8)])
    half = np.dstack([COLOURS, np.full((5, 7), 128, np.uint8)])
    assert (read_image(encoded(Image.fromarray(clear), "PNG")) == 255).all()
    assert (read_image(encoded(Image.fromarray(clear), "PNG"), background=(1, 2, 3)) == [1, 2, 3]).all()
    exact = COLOURS * (128 / 255) + 255 * (127 / 255)
    assert np.abs(read_image(encoded(Image.fromarray(half), "PNG")) - exact).max() <= 0.5
    assert np.array_equal(read_image(encoded(Image.fromarray(half), "PNG"), order="rgba"), half)
    # One colour of a palette, or one grey, may be the transparent one.
    palette = Image.fromarray(COLOURS).quantize(4)
    shown = read_image(encoded(palette, "PNG", transparency=0))
    assert (shown[np.asarray(palette) == 0] == 255).all()
    grey = Image.fromarray(np.array([[7, 9]], np.uint8))
    assert read_image(encoded(grey, "PNG", transparency=7), order="grey").ravel().tolist() == [255, 9]


def test_palette_grey_black_and_white_and_cmyk() -> None:
    palette = Image.fromarray(COLOURS).quantize(8)
    assert np.array_equal(read_image(encoded(palette, "PNG")), np.asarray(palette.convert("RGB")))
    bits = Image.fromarray(COLOURS[..., 0] > 128)
    assert set(np.unique(read_image(encoded(bits, "PNG")))) == {0, 255}
    cmyk = Image.fromarray(np.dstack([255 - COLOURS, np.zeros((5, 7), np.uint8)]), mode="CMYK")
    got = read_image(encoded(cmyk, "JPEG", quality=100, subsampling=0))
    assert np.abs(got.astype(int) - COLOURS).max() <= 6  # JPEG's own loss


def test_an_animation_is_its_first_frame() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "lime")]
    for form in ("GIF", "WEBP", "PNG"):
        data = encoded(frames[0], form, save_all=True, append_images=frames[1:], lossless=True)
        assert np.array_equal(read_image(data)[0, 0], [255, 0, 0]), form


@pytest.mark.parametrize("form", ["PNG", "JPEG", "BMP", "WEBP", "GIF"])
def test_a_truncated_file_is_refused(form: str) -> None:
    noise = Image.fromarray(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8))
    data = encoded(noise, form)
    for share in (0.5, 0.1):
        with pytest.raises(DataError, match="cannot be decoded"):
            read_image(data[: int(len(data) * share)])


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "empty"),
        (b"not an image", "cannot be decoded"),
        (png(0, 4, 8, 2, b""), "cannot be decoded"),
        (png(17_000, 1, 8, 0, b"\0" * 17_001), "17000x1"),
        (png(16_000, 16_000, 1, 0, b""), "256000000 pixels"),
        (png(2**31 - 1, 2**31 - 1, 8, 2, b""), "cannot be decoded"),
    ],
)
def test_what_is_no_image_or_too_large_is_refused(data: bytes, says: str) -> None:
    with pytest.raises(DataError, match=says):
        read_image(data)


def test_the_bound_holds_before_anything_is_decoded() -> None:
    side = int(MAX_PIXELS**0.5) + 1
    # No pixel data at all: were it decoded first, the message would be about that.
    with pytest.raises(DataError, match="at most"):
        read_image(png(side, side, 8, 0, b""))


def test_a_missing_file_and_another_format_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Check the path"):
        read_image(tmp_path / "none.png")
    with pytest.raises(DataError, match="PNG, JPEG"):
        read_image(encoded(Image.fromarray(COLOURS), "TIFF"))


@pytest.mark.parametrize("seed", range(4))
def test_random_damage_never_gives_another_error(seed: int) -> None:
    rng = np.random.default_rng(seed)
    exif = Image.Exif()
    exif[0x0112] = 6
    for form in ("PNG", "JPEG", "WEBP", "GIF", "BMP"):
        data = bytearray(encoded(Image.fromarray(COLOURS), form, exif=exif.tobytes()))
        for _ in range(30):
            broken = bytearray(data)
            for place in rng.integers(0, len(data), 4):
                broken[place] = rng.integers(0, 256)
            try:
                image = read_image(bytes(broken))
            except DataError:
                continue
            assert image.dtype == np.uint8 and image.shape[2] == 3


def test_a_file_of_another_format_is_said_to_be_one(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"not an image")
    with pytest.raises(DataError, match=r"a\.png cannot be decoded as .*: unknown format\. Remove"):
        read_image(tmp_path / "a.png")
