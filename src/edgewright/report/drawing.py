"""Results drawn into a picture: boxes, masks, labels, waveforms."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from edgewright.core.tensors import Array
from edgewright.processing.results import (
    Box,
    Boxes,
    Classes,
    Label,
    Mask,
    Point,
    Points,
    Result,
    Runs,
    Text,
    Values,
    Waveform,
    name_of,
    result_lines,
)

if TYPE_CHECKING:
    from PIL.Image import Image as Picture
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont, ImageFont

_MASK_OPACITY = 0.55
_SMALLEST_SIDE = 480  # a smaller picture is enlarged, so that its labels can be read
_LARGEST_SIDE = 4096
_WAVE_SIZE = (1200, 300)
_LEAST_SHARE = 0.001  # of the pixels, for a line in the legend
_LINE_CHARACTERS = 80
_RUNS = 12  # of a stream, a line each
_INK = (32, 36, 44)
_PAPER = (255, 255, 255)
_LINE = (44, 98, 200)


def draw_results(
    raw: Mapping[str, Array | str], results: Mapping[str, Result], *, orders: Mapping[str, str] | None = None
) -> Picture:
    """Return a picture of the results: over the first image among the raw inputs, else waveforms and text.

    Args:
        raw: name -> what was predicted from; an image is uint8 [height, width, 1, 3 or 4].
        orders: name of an image -> the order of its colours; default: rgb.
    """
    from PIL import Image

    images = ((n, v) for n, v in raw.items() if isinstance(v, np.ndarray) and _is_image(v))
    name, pixels = next(images, ("", None))
    if pixels is None:
        return _draw_sound(raw, results)
    if (orders or {}).get(name) == "bgr":
        pixels = np.ascontiguousarray(pixels[..., ::-1])
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).convert("RGB")
    zoom = _zoom(image.size)
    image = image.resize((max(1, round(image.width * zoom)), max(1, round(image.height * zoom))))
    for result in results.values():
        if isinstance(result, Mask):
            image = _lay_mask(image, result)
    return _draw_marks(image, results, zoom)


def colour(index: int) -> tuple[int, int, int]:
    """Return the colour of class `index`: neighbours differ by the golden angle."""
    red, green, blue = colorsys.hsv_to_rgb((0.58 + index * 0.618034) % 1.0, 0.75, 0.9)
    return round(red * 255), round(green * 255), round(blue * 255)


def _is_image(value: Array) -> bool:
    return value.dtype == np.uint8 and value.ndim == 3 and value.shape[2] in (1, 3, 4)


def _zoom(size: tuple[int, int]) -> float:
    if max(size) < _SMALLEST_SIDE:
        return _SMALLEST_SIDE / max(size)
    return min(1.0, _LARGEST_SIDE / max(size))


def _draw_marks(image: Picture, results: Mapping[str, Result], zoom: float) -> Picture:
    from PIL import ImageDraw

    draw = ImageDraw.Draw(image)
    font = _font(max(image.size))
    lines: list[tuple[str, tuple[int, int, int]]] = []
    for name, result in results.items():
        if isinstance(result, Boxes):
            for box in reversed(result.boxes):  # the best last, so that its label lies on top
                _draw_box(draw, box, font, zoom)
        elif isinstance(result, Points):
            _draw_points(draw, result.points, zoom)
        elif isinstance(result, Mask):
            lines += _legend(result)
        else:
            lines += [(line, _INK) for line in _lines(name, result)]
    return _with_panel(image, lines, font)


def _draw_box(draw: ImageDraw, box: Box, font: FreeTypeFont | ImageFont, zoom: float) -> None:
    tone = colour(box.label.index)
    x0, y0, x1, y1 = (value * zoom for value in (box.x0, box.y0, box.x1, box.y1))
    draw.rectangle((min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)), outline=tone, width=3)
    text = _title(box.label)
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    width, height = right - left + 8, bottom - top + 6
    at_x = min(max(x0, 0), max(draw.im.size[0] - width, 0))
    at_y = y0 - height if y0 >= height else y0
    draw.rectangle((at_x, at_y, at_x + width, at_y + height), fill=tone)
    draw.text((at_x + 4 - left, at_y + 3 - top), text, fill=_PAPER, font=font)
    _draw_points(draw, box.points, zoom)


def _draw_points(draw: ImageDraw, points: tuple[Point, ...], zoom: float) -> None:
    for index, point in enumerate(points):
        x, y = point.x * zoom, point.y * zoom
        draw.ellipse((x - 4, y - 4, x + 4, y + 4), fill=colour(index), outline=_PAPER)


def _lay_mask(image: Picture, mask: Mask) -> Picture:
    from PIL import Image

    found = np.unique(mask.classes).tolist()
    layer = np.zeros((*mask.classes.shape, 4), dtype=np.uint8)
    for index in found:
        if index:  # class 0 is the background in every common set of labels
            layer[mask.classes == index] = (*colour(int(index)), round(255 * _MASK_OPACITY))
    overlay = Image.fromarray(layer).resize(image.size, Image.Resampling.NEAREST)
    return Image.alpha_composite(image.convert("RGBA"), overlay).convert("RGB")


def _legend(mask: Mask) -> list[tuple[str, tuple[int, int, int]]]:
    lines = []
    for index, share in list(mask.share().items())[:8]:
        if share < _LEAST_SHARE:
            continue
        name = name_of(mask.names, index) or f"class {index}"
        lines.append((f"{name}  {share:.1%}", colour(index) if index else _INK))
    return lines


def _lines(name: str, result: Result) -> list[str]:
    if isinstance(result, Classes):
        return [_title(label) for label in result.labels] or [f"{name}: none"]
    if isinstance(result, Text):
        return [f"{name}: {result.text or result.codes}"[:120]]
    if isinstance(result, Values):
        return [f"{name}: {np.array2string(result.array.reshape(-1)[:8], precision=4)}"]
    if isinstance(result, Runs):
        lines = result_lines(name, result)
        left = [f"and {len(lines) - _RUNS} more"] if len(lines) > _RUNS else []
        return [*lines[:_RUNS], *left]
    return []


def _title(label: Label) -> str:
    # Labels of ImageNet list synonyms: the first says enough on a picture.
    return f"{label.name.partition(',')[0] or f'class {label.index}'}  {label.score:.2f}"


def _with_panel(
    image: Picture, lines: list[tuple[str, tuple[int, int, int]]], font: FreeTypeFont | ImageFont
) -> Picture:
    """Return the picture with lines of text below it, where they hide nothing."""
    from PIL import Image, ImageDraw

    if not lines:
        return image
    size = font.size if isinstance(font, _scalable()) else 16
    row = round(size * 1.5)
    made = Image.new("RGB", (image.width, image.height + row * len(lines) + 12), _PAPER)
    made.paste(image, (0, 0))
    draw = ImageDraw.Draw(made)
    for number, (text, tone) in enumerate(lines):
        shown = text if len(text) <= _LINE_CHARACTERS else text[: _LINE_CHARACTERS - 3] + "..."
        draw.text((12, image.height + 6 + number * row), shown, fill=tone, font=font)
    return made


def _scalable() -> type[FreeTypeFont]:
    from PIL.ImageFont import FreeTypeFont

    return FreeTypeFont


def _draw_sound(raw: Mapping[str, Array | str], results: Mapping[str, Result]) -> Picture:
    """Return one row a waveform, the raw ones first, and below them what is no waveform."""
    from PIL import Image, ImageDraw

    waves: list[tuple[str, Array]] = [
        (name, value) for name, value in raw.items() if isinstance(value, np.ndarray) and value.ndim == 1
    ]
    curves = [(name, r.array) for name, r in results.items() if isinstance(r, Values) and r.array.size > 8]
    waves += [(name, r.samples) for name, r in results.items() if isinstance(r, Waveform)]
    lines = [line for name, r in results.items() if name not in dict(curves) for line in _lines(name, r)]
    width, row = _WAVE_SIZE
    rows = [*waves, *((name, array.reshape(-1)) for name, array in curves)]
    font = _font(width)
    image = Image.new("RGB", (width, row * len(rows) + 30 * len(lines) + 20), _PAPER)
    draw = ImageDraw.Draw(image)
    for number, (name, samples) in enumerate(rows):
        _draw_curve(draw, samples, top=row * number + 10, is_wave=number < len(waves))
        draw.text((14, row * number + 12), name, fill=_INK, font=font)
    for number, line in enumerate(lines):
        draw.text((14, row * len(rows) + 10 + 30 * number), line, fill=_INK, font=font)
    return image


def _draw_curve(draw: ImageDraw, samples: Array, *, top: int, is_wave: bool) -> None:
    """Draw the least and the greatest value of each column; sound about its middle, scores from 0 to their largest."""
    width, height = _WAVE_SIZE[0] - 20, _WAVE_SIZE[1] - 30
    values = np.nan_to_num(np.asarray(samples, dtype=np.float32))  # of a model, which may give anything
    values = values.astype(np.float64)
    largest = max(float(np.abs(values).max(initial=0.0)), 1e-9)
    # Not array_split: its first parts are longer, which would bend time.
    count = min(width, max(values.size, 1))
    columns = np.split(values, np.arange(1, count) * values.size // count)
    middle = top + 20 + (height / 2 if is_wave else height - 10)
    scale = (height / 2 - 10) / largest if is_wave else (height - 20) / largest
    draw.line((10, middle, 10 + width, middle), fill=(210, 214, 220))
    step = width / len(columns)
    for number, column in enumerate(columns):
        x = 10 + number * step
        low, high = (float(column.min()), float(column.max())) if column.size else (0.0, 0.0)
        low = min(low, 0.0) if not is_wave else low
        draw.line((x, middle - high * scale, x, middle - low * scale), fill=_LINE, width=max(1, round(step)))


def _font(side: int) -> FreeTypeFont | ImageFont:
    from PIL import ImageFont

    return ImageFont.load_default(size=max(14, round(side / 55)))
