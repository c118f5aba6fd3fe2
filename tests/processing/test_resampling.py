"""Resampling equals the libraries that its definitions name: Pillow, OpenCV and torch."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
from PIL import Image

from edgewright.core.tensors import Array
from edgewright.processing.resampling import (
    FILTER_BITS,
    POINT_BITS,
    Corners,
    Method,
    filter_taps,
    nearest_indices,
    point_taps,
    resample,
)

RNG = np.random.default_rng(11)
SIZES = [(1, 1, 5, 7), (7, 5, 1, 1), (37, 53, 24, 19), (24, 19, 37, 53), (30, 64, 90, 16), (65, 2, 2, 65)]
Size = tuple[int, int, int, int]


def noise(height: int, width: int, channels: int = 3) -> Array:
    return RNG.integers(0, 256, (height, width, channels), dtype=np.uint8)


def plain(image: Array, height: int, width: int, method: Method, corners: Corners = "half_pixel") -> Array:
    return resample(image, height, width, method=method, antialias=False, corners=corners)


def furthest(a: Array, b: Array) -> float:
    return float(np.abs(a.astype(np.float64) - b.astype(np.float64)).max())


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("method", ["bilinear", "bicubic"])
def test_antialias_gives_the_bytes_of_pillow(size: Size, method: Literal["bilinear", "bicubic"]) -> None:
    height, width, to_height, to_width = size
    image = noise(height, width)
    got = resample(image, to_height, to_width, method=method, antialias=True, corners="half_pixel")
    way = Image.Resampling[method.upper()]
    # In two calls: Pillow 13 takes the rows first for some sizes.
    want = Image.fromarray(image).resize((to_width, height), way).resize((to_width, to_height), way)
    assert np.array_equal(got, np.asarray(want))


@pytest.mark.parametrize("size", SIZES)
def test_nearest_is_pillows_but_for_ties(size: Size) -> None:
    height, width, to_height, to_width = size
    image = noise(height, width)
    got = plain(image, to_height, to_width, "nearest")
    want = np.asarray(Image.fromarray(image).resize((to_width, to_height), Image.Resampling.NEAREST))
    is_tie_y = (2 * np.arange(to_height) + 1) * height % (2 * to_height) == 0
    is_tie_x = (2 * np.arange(to_width) + 1) * width % (2 * to_width) == 0
    same = (got == want).all(axis=2)
    assert same[~is_tie_y][:, ~is_tie_x].all()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_point_sampling_and_area_are_opencvs(size: Size, dtype: str) -> None:
    cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed")
    height, width, to_height, to_width = size
    image = noise(height, width).astype(dtype)
    methods: list[Method] = ["bilinear", "bicubic"]
    if to_height <= height and to_width <= width:
        methods.append("area")
    for method in methods:
        flag = {"bilinear": cv2.INTER_LINEAR, "bicubic": cv2.INTER_CUBIC, "area": cv2.INTER_AREA}[method]
        want = cv2.resize(image, (to_width, to_height), interpolation=flag)
        assert furthest(plain(image, to_height, to_width, method), want) <= (1 if dtype == "uint8" else 5e-3)


@pytest.mark.parametrize("size", SIZES)
def test_float_images_are_torchs(size: Size) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    height, width, to_height, to_width = size
    image = RNG.standard_normal((height, width, 2)).astype(np.float32)
    batch = torch.from_numpy(image.transpose(2, 0, 1)[None].copy())
    methods: tuple[Method, Method] = ("bilinear", "bicubic")
    for method in methods:
        for align, antialias in ((False, False), (True, False), (False, True)):
            want = torch.nn.functional.interpolate(
                batch, (to_height, to_width), mode=method, align_corners=align, antialias=antialias
            )
            got = resample(
                image, to_height, to_width,
                method=method, antialias=antialias, corners="align" if align else "half_pixel",
            )  # fmt: skip
            assert furthest(got, want[0].numpy().transpose(1, 2, 0)) < 3e-5, (method, align, antialias)


def test_asymmetric_is_the_formula_of_tf1() -> None:
    image = RNG.standard_normal((5, 4, 1)).astype(np.float32)
    got = plain(image, 8, 7, "bilinear", "asymmetric")
    for i in range(8):
        for j in range(7):
            y, x = i * 5 / 8, j * 4 / 7
            top, left = int(y), int(x)
            bottom, right = min(top + 1, 4), min(left + 1, 3)
            above = image[top, left] * (1 - (x - left)) + image[top, right] * (x - left)
            below = image[bottom, left] * (1 - (x - left)) + image[bottom, right] * (x - left)
            assert got[i, j] == pytest.approx(above * (1 - (y - top)) + below * (y - top), abs=1e-6)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("corners", ["half_pixel", "align", "asymmetric"])
@pytest.mark.parametrize("method", ["bilinear", "bicubic"])
def test_integers_round_what_float64_gives(size: Size, corners: Corners, method: Method) -> None:
    height, width, to_height, to_width = size
    image = noise(height, width)
    down = point_taps(height, to_height, method, corners)
    across = point_taps(width, to_width, method, corners)
    rows = np.einsum("ot,otwc->owc", down.weights, image[down.indices].astype(np.float64))
    exact = np.einsum("ot,hotc->hoc", across.weights, rows[:, across.indices])
    assert furthest(plain(image, to_height, to_width, method, corners), np.clip(exact, 0, 255)) <= 0.75


@pytest.mark.parametrize("value", [0, 1, 127, 254, 255])
def test_a_flat_image_stays_flat(value: int) -> None:
    image = np.full((41, 23, 1), value, np.uint8)
    for size in ((1, 1), (7, 90), (300, 5), (41, 11)):
        for method, antialias in (
            ("nearest", False), ("bilinear", False), ("bilinear", True), ("bicubic", False), ("bicubic", True),
            ("area", False),
        ):  # fmt: skip
            made = resample(image, *size, method=method, antialias=antialias, corners="half_pixel")  # type: ignore[arg-type]
            assert made.shape == (*size, 1) and (made == value).all(), (size, method, antialias)


def test_weights_sum_up() -> None:
    for size, out in ((16_384, 1), (1, 16_384), (16_384, 16_383), (1920, 224), (3, 7)):
        for method in ("bilinear", "bicubic"):
            assert (point_taps(size, out, method, "half_pixel").fixed.sum(axis=1) == 1 << POINT_BITS).all()  # type: ignore[arg-type]
        for method in ("bilinear", "bicubic", "area"):
            taps = filter_taps(size, out, method)  # type: ignore[arg-type]
            # Half a step of 255 at most is lost by rounding the weights.
            assert np.abs(taps.fixed.sum(axis=1, dtype=np.int64) - (1 << FILTER_BITS)).max() * 255 < 1 << 21
            assert taps.indices.min() >= 0 and taps.indices.max() < size


def test_nearest_takes_the_pixel_under_the_centre() -> None:
    assert nearest_indices(6, 3, "half_pixel").tolist() == [1, 3, 5]
    assert nearest_indices(6, 3, "asymmetric").tolist() == [0, 2, 4]
    assert nearest_indices(6, 3, "align").tolist() == [0, 3, 5]
    assert nearest_indices(6, 1, "align").tolist() == [0]
    for corners in ("half_pixel", "asymmetric", "align"):
        assert nearest_indices(5, 5, corners).tolist() == [0, 1, 2, 3, 4]
