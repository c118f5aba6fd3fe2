"""Images as nobody wants them: cut off, bombs, odd kinds of pixels, turned, animated, with broken metadata."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from benchmarks.processing.hostile_cases import Case, Must, cut_off
from PIL import Image, ImageCms, PngImagePlugin

from edgewright.core.tensors import Array

JPEG_LOSS = 12.0
_GENERATOR = np.random.default_rng(3)
_ORIENTATION = 0x0112


def images(assets: Path) -> Iterator[Case]:
    """Yield all cases; `assets` holds the photographs."""
    with Image.open(assets / "data/coral-images/parrot.jpg") as opened:
        photograph = opened.convert("RGB").resize((93, 61))
    for make in (_cut_off, _bombs, _sizes, _pixels, _turned, _metadata, _animated, _no_images, _damaged):
        yield from make(photograph)


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    """Return the file of `image`."""
    stream = io.BytesIO()
    image.save(stream, form, **options)  # type: ignore[arg-type]
    return stream.getvalue()


def decoded(content: bytes) -> Array:
    """Return what Pillow makes of a good file, as RGB, whatever it warns of in its notes."""
    warnings.simplefilter("ignore")
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image.convert("RGB"))


def chunk(kind: bytes, body: bytes) -> bytes:
    """Return a chunk of a PNG."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(
    width: int, height: int, depth: int, colour: int, rows: bytes, *between: bytes, interlaced: int = 0
) -> bytes:
    """Return a PNG with any head; `between` are chunks before its pixels."""
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    parts = [chunk(b"IHDR", head), *between, chunk(b"IDAT", zlib.compress(rows, 9)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _cut_off(photograph: Image.Image) -> Iterator[Case]:
    ways: Sequence[tuple[str, str, dict[str, object]]] = (
        (".jpg", "JPEG", {"quality": 90}), (".jpg", "JPEG", {"progressive": True}), (".png", "PNG", {}),
        (".bmp", "BMP", {}), (".gif", "GIF", {}), (".webp", "WEBP", {"lossless": True}), (".webp", "WEBP", {}),
    )  # fmt: skip
    for number, (suffix, form, options) in enumerate(ways):
        content = encoded(photograph, form, **options)
        yield from cut_off(f"cut off {suffix[1:]}", f"cut{number}", suffix, content, decoded(content))


def _bombs(photograph: Image.Image) -> Iterator[Case]:
    side = 1 << 31
    pixels = b"\0" * 64
    contents = {
        "wide.png": png(60_000, 60_000, 8, 2, pixels),
        "most.png": png(side - 1, side - 1, 16, 6, pixels),
        "bits.png": png(16_000, 16_000, 1, 0, pixels),
        "long.png": png(1, 16_385, 8, 0, pixels),
        "rows.png": png(8000, 8001, 8, 0, pixels),
        "wide.gif": b"GIF89a" + struct.pack("<HHBBB", 65_535, 65_535, 0, 0, 0) + encoded(photograph, "GIF")[13:],
        "wide.bmp": b"BM" + struct.pack("<IHHI", 100, 0, 0, 54)
        + struct.pack("<IiiHHIIiiII", 40, 1 << 30, 1 << 30, 1, 24, 0, 0, 0, 0, 0, 0) + pixels,
        "below.bmp": b"BM" + struct.pack("<IHHI", 100, 0, 0, 54)
        + struct.pack("<IiiHHIIiiII", 40, -5, -(1 << 31), 1, 24, 0, 0, 0, 0, 0, 0) + pixels,
        "wide.webp": b"RIFF" + struct.pack("<I", 60) + b"WEBPVP8X" + struct.pack("<I", 10)
        + b"\0\0\0\0" + b"\xff\xff\xff" * 2 + pixels,
    }  # fmt: skip
    large = bytearray(encoded(photograph, "JPEG"))
    place = large.index(b"\xff\xc0")
    large[place + 5 : place + 9] = b"\xff\xff\xff\xff"
    contents["wide.jpg"] = bytes(large)
    for name, content in contents.items():
        yield Case(kind="bombs", name=f"bomb_{name}", content=content)
    # A good picture whose pixels, profile or notes are packed zeros without end.
    zeros = zlib.compress(bytes(64 << 20), 9)
    white = Image.new("RGB", (4, 3), "white")
    good = np.full((3, 4, 3), 255, np.uint8)
    rows = b"".join(b"\0" + row.tobytes() for row in good)
    yield Case(
        kind="bombs",
        name="bomb_pixels.png",
        content=png(4, 3, 8, 2, rows + bytes(64 << 20)),
        must="either",
        wanted=good,
    )
    for name, body in (
        ("iCCP", b"p\0\0" + zeros),
        ("zTXt", b"t\0\0" + zeros),
        ("iTXt", b"t\0\1\0\0\0" + zeros),
    ):
        content = png(4, 3, 8, 2, rows, chunk(name.encode(), body))
        yield Case(kind="bombs", name=f"bomb_{name}.png", content=content, must="either", wanted=good)
    many = png(4, 3, 8, 2, rows, *[chunk(b"tEXt", b"a\0" + b"b" * 1000)] * 5000)
    yield Case(kind="bombs", name="bomb_notes.png", content=many, must="either", wanted=good)
    frames = encoded(
        white, "GIF", save_all=True, append_images=[Image.new("RGB", (4, 3), (n, n, n)) for n in range(250)]
    )
    yield Case(kind="bombs", name="bomb_frames.gif", content=frames, must="right", wanted=good)


def _sizes(photograph: Image.Image) -> Iterator[Case]:
    for width, height in (
        (1, 1),
        (1, 2),
        (2, 1),
        (1, 777),
        (777, 1),
        (3, 5000),
        (16_384, 1),
        (1, 16_384),
        (7, 3),
    ):
        pixels = _GENERATOR.integers(0, 256, (height, width, 3), dtype=np.uint8)
        for form in ("PNG", "BMP"):
            content = encoded(Image.fromarray(pixels), form)
            name = f"size_{width}x{height}.{form.lower()}"
            yield Case(kind="odd sizes", name=name, content=content, must="right", wanted=pixels)
    for width, height in ((0, 0), (0, 5), (5, 0)):
        yield Case(kind="zero size", name=f"zero_{width}x{height}.png", content=png(width, height, 8, 2, b""))
        bitmap = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
        content = b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + bitmap
        yield Case(kind="zero size", name=f"zero_{width}x{height}.bmp", content=content)
        still = b"GIF89a" + struct.pack("<HHBBB", width, height, 0, 0, 0) + b";"
        yield Case(kind="zero size", name=f"zero_{width}x{height}.gif", content=still)
    jpeg = bytearray(encoded(photograph, "JPEG"))
    place = jpeg.index(b"\xff\xc0")
    jpeg[place + 5 : place + 9] = bytes(4)
    yield Case(kind="zero size", name="zero.jpg", content=bytes(jpeg))


def _pixels(photograph: Image.Image) -> Iterator[Case]:
    colours = np.asarray(photograph)
    height, width = colours.shape[:2]
    grey = np.repeat(colours[..., :1], 3, axis=2)
    on_white = colours[..., :1].astype(np.int64)
    deep = colours.astype(">u2") * 257

    def rows(array: Array) -> bytes:
        return b"".join(b"\0" + row.tobytes() for row in array)

    def right(name: str, content: bytes, wanted: Array, tolerance: float = 0.0) -> Case:
        return Case(
            kind="kinds of pixels",
            name=f"pixels_{name}",
            content=content,
            must="right",
            wanted=wanted,
            tolerance=tolerance,
        )

    yield right("rgb16.png", png(width, height, 16, 2, rows(deep)), colours)
    yield right("grey16.png", png(width, height, 16, 0, rows(deep[..., :1])), grey)
    opaque = np.concatenate([deep[..., :1], np.full_like(deep[..., :1], 65_535)], axis=2)
    yield right("grey_alpha16.png", png(width, height, 16, 4, rows(opaque)), grey)
    clear = np.concatenate([deep, np.zeros_like(deep[..., :1])], axis=2)
    yield right("clear16.png", png(width, height, 16, 6, rows(clear)), np.full_like(colours, 255))
    yield right("grey.png", encoded(Image.fromarray(colours[..., 0]), "PNG"), grey)
    yield right("grey.jpg", encoded(Image.fromarray(colours[..., 0]), "JPEG", quality=100), grey, 6)
    yield right("grey.bmp", encoded(Image.fromarray(colours[..., 0]), "BMP"), grey)
    half = np.dstack([colours, np.full((height, width), 128, np.uint8)])
    laid = np.round((colours.astype(np.float64) * 128 + 255 * 127) / 255)
    for form in ("PNG", "WEBP"):
        content = encoded(Image.fromarray(half), form, lossless=True)
        yield right(f"alpha.{form.lower()}", content, laid, 2)
    palette = photograph.quantize(64)
    yield right("palette.png", encoded(palette, "PNG"), np.asarray(palette.convert("RGB")))
    yield right("palette.gif", encoded(palette, "GIF"), np.asarray(palette.convert("RGB")))
    seen = np.asarray(palette.convert("RGB")).copy()
    seen[np.asarray(palette) == 3] = 255
    yield right("palette_clear.png", encoded(palette, "PNG", transparency=3), seen)
    few = photograph.quantize(4)
    for bits in (2, 4):
        yield right(f"palette{bits}.png", encoded(few, "PNG", bits=bits), np.asarray(few.convert("RGB")))
    black = photograph.convert("1")
    for form in ("PNG", "BMP", "GIF"):
        yield right(f"black.{form.lower()}", encoded(black, form), np.asarray(black.convert("RGB")))
    cmyk = photograph.convert("CMYK")
    yield right("cmyk.jpg", encoded(cmyk, "JPEG", quality=95), colours, JPEG_LOSS)
    yield right(
        "progressive.jpg",
        encoded(photograph, "JPEG", quality=98, subsampling=0, progressive=True),
        colours,
        JPEG_LOSS,
    )
    yield right("full_colour.jpg", encoded(photograph, "JPEG", quality=100, subsampling=0), colours, 10)
    interlaced = bytearray(encoded(photograph, "PNG"))
    yield right("alpha.bmp", encoded(Image.fromarray(half[..., :3]), "BMP"), colours)
    yield right("photograph.png", bytes(interlaced), colours)
    upside = b"BM" + struct.pack("<IHHI", 54 + height * ((width * 3 + 3) // 4 * 4), 0, 0, 54)
    upside += struct.pack("<IiiHHIIiiII", 40, width, -height, 1, 24, 0, 0, 0, 0, 0, 0)
    padded = np.zeros((height, (width * 3 + 3) // 4 * 4), np.uint8)
    padded[:, : width * 3] = colours[..., ::-1].reshape(height, -1)
    yield right("upside_down.bmp", upside + padded.tobytes(), colours)
    assert on_white.shape[2] == 1


def _turned(photograph: Image.Image) -> Iterator[Case]:
    upright = np.asarray(photograph)
    stored = {
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1],
        5: upright.transpose(1, 0, 2), 6: np.rot90(upright), 7: upright.transpose(1, 0, 2)[::-1, ::-1],
        8: np.rot90(upright, 3),
    }  # fmt: skip
    for orientation, pixels in stored.items():
        exif = Image.Exif()
        exif[_ORIENTATION] = orientation
        image = Image.fromarray(np.ascontiguousarray(pixels))
        for form, loss in (("PNG", 0.0), ("JPEG", JPEG_LOSS), ("WEBP", 0.0)):
            content = encoded(image, form, exif=exif, quality=98, subsampling=0, lossless=True)
            yield Case(
                kind="EXIF 1..8", name=f"turned_{orientation}.{form.lower()}", content=content, must="right",
                wanted=upright, tolerance=loss,
            )  # fmt: skip


def _metadata(photograph: Image.Image) -> Iterator[Case]:
    upright = np.asarray(photograph)
    for number, orientation in enumerate((0, 9, 255, 65_535, "6", (6, 6))):
        exif = Image.Exif()
        exif[_ORIENTATION] = orientation
        try:
            content = encoded(photograph, "PNG", exif=exif)
        except (TypeError, struct.error):
            continue
        must: Must = (
            "turned" if isinstance(orientation, tuple) else "right"
        )  # two orientations: which, who knows
        yield Case(
            kind="broken EXIF, ICC", name=f"exif_{number}.png", content=content, must=must, wanted=upright
        )
    exif = Image.Exif()
    exif[_ORIENTATION], exif[0x010E] = 6, "a" * 60
    good = exif.tobytes()
    for number in range(60):
        body = bytearray(good)
        for place in _GENERATOR.integers(6, len(body), 3):
            body[place] = _GENERATOR.integers(0, 256)
        for form in ("JPEG", "PNG"):
            content = encoded(photograph, form, exif=bytes(body), quality=95)
            # Turned or not as its bytes now say; never an error of its own, never other pixels.
            turned = decoded(content)
            yield Case(
                kind="broken EXIF, ICC",
                name=f"exif_{number}_{form.lower()}.{form.lower()}",
                content=content,
                must="turned",
                wanted=turned,
            )  # type: ignore[arg-type]
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for number, icc in enumerate((b"", b"x", profile[:50], profile[::-1], bytes(5000))):
        for form in ("PNG", "JPEG", "WEBP"):
            content = encoded(photograph, form, icc_profile=icc, quality=95, lossless=True)
            name = f"icc_{number}.{form.lower()}"
            yield Case(
                kind="broken EXIF, ICC", name=name, content=content, must="right", wanted=decoded(content)
            )
    note = PngImagePlugin.PngInfo()
    note.add_text("Raw profile type exif", "\nexif\n 9999\nzz\n")
    yield Case(
        kind="broken EXIF, ICC",
        name="exif_text.png",
        content=encoded(photograph, "PNG", pnginfo=note),
        must="right",
        wanted=upright,
    )


def _animated(photograph: Image.Image) -> Iterator[Case]:
    others = [Image.new("RGB", photograph.size, colour) for colour in ("blue", "lime", "white")]
    still = np.asarray(photograph.quantize(256).convert("RGB"))
    for form, wanted, loss in (
        ("GIF", still, 60.0),
        ("WEBP", np.asarray(photograph), 0.0),
        ("PNG", np.asarray(photograph), 0.0),
    ):
        content = encoded(photograph, form, save_all=True, append_images=others, lossless=True, duration=50)
        yield Case(
            kind="animated",
            name=f"animated.{form.lower()}",
            content=content,
            must="right",
            wanted=wanted,
            tolerance=loss,
        )
        yield from cut_off(
            "animated", f"animated_cut_{form.lower()}", f".{form.lower()}", content, decoded(content)
        )
    # A first frame that covers a corner of its screen only: what is left is transparent, so white.
    small = Image.new("RGB", (3, 2), "red")
    content = bytearray(encoded(small, "GIF"))
    content[6:10] = struct.pack("<HH", 9, 7)
    wanted = np.zeros((7, 9, 3), np.uint8)
    yield Case(
        kind="animated",
        name="corner.gif",
        content=bytes(content),
        must="either",
        wanted=decoded(bytes(content)),
    )
    assert wanted.size


def _no_images(photograph: Image.Image) -> Iterator[Case]:
    contents = {
        "empty.png": b"", "text.png": b"not an image", "zeros.jpg": bytes(5000), "ones.gif": b"\xff" * 5000,
        "vector.png": b"<svg xmlns='http://www.w3.org/2000/svg'/>", "archive.png": b"PK\3\4" + bytes(100),
        "tiff.png": encoded(photograph, "TIFF"), "icon.png": encoded(photograph, "ICO"),
        "pdf.jpg": encoded(photograph, "PDF"), "heic.jpg": bytes(4) + b"ftypheic" + bytes(100),
        "eps.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "pickle.png": b"\x80\x04\x95cos\nsystem\n",
    }  # fmt: skip
    for name, content in contents.items():
        yield Case(kind="no images", name=f"none_{name}", content=content)
    for suffix in (".jpg", ".bmp", ".gif", ".webp"):
        content = encoded(photograph, "PNG")
        yield Case(
            kind="another suffix",
            name=f"other{suffix}",
            content=content,
            must="right",
            wanted=np.asarray(photograph),
        )


def _damaged(photograph: Image.Image) -> Iterator[Case]:
    for form in ("PNG", "JPEG", "WEBP", "GIF", "BMP"):
        good = encoded(photograph, form)
        for number in range(60):
            body = bytearray(good)
            for place in _GENERATOR.integers(0, min(len(body), 400 if number % 2 else len(body)), 3):
                body[place] = _GENERATOR.integers(0, 256)
            yield Case(
                kind="changed bytes", name=f"changed_{number}.{form.lower()}", content=bytes(body), must="any"
            )  # type: ignore[arg-type]
