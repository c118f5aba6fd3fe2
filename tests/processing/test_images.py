"""Steps of images: channels, crop, resize, letterbox, normalize, layout, and the geometry that they leave."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from edgewright.core.errors import DataError, UsageError
from edgewright.core.tensors import Array
from edgewright.processing.images import Channels, Crop, Layout, Normalize
from edgewright.processing.resize import Letterbox, Resize, ShortSide
from edgewright.processing.step import Frame, Geometry, Step
from edgewright.processing.values import ValueType, image_type

RNG = np.random.default_rng(3)
RGB = image_type("rgb")


def noise(height: int, width: int, channels: int = 3) -> Array:
    return RNG.integers(0, 256, (height, width, channels), dtype=np.uint8)


def run(step: Step, value: Array, given: ValueType = RGB) -> Array:
    """Return what the step makes, which must be what its type rule says."""
    made = step.apply((value,), Frame(given=(given,)))
    said = step.result((given,))
    assert made.dtype == said.dtype and len(made.shape) == len(said.shape)
    assert all(size in (None, have) for size, have in zip(said.shape, made.shape, strict=True))
    return made


def geometry(height: int, width: int) -> Geometry:
    return Geometry(source_height=height, source_width=width, height=height, width=width)


def test_grey_is_pillows() -> None:
    image = noise(9, 11)
    want = np.asarray(Image.fromarray(image).convert("L"))
    assert np.array_equal(run(Channels(order="grey"), image)[..., 0], want)
    swapped = run(Channels(order="grey"), image[..., ::-1], image_type("bgr"))
    assert np.array_equal(swapped[..., 0], want)


def test_channels_turn_round_and_alpha_is_laid_down() -> None:
    image = noise(4, 5)
    assert np.array_equal(run(Channels(order="bgr"), image), image[..., ::-1])
    assert np.array_equal(run(Channels(order="rgb"), image), image)
    grey = noise(4, 5, 1)
    assert np.array_equal(run(Channels(order="rgb"), grey, image_type("grey")), np.repeat(grey, 3, 2))
    clear = np.dstack([image, RNG.integers(0, 256, (4, 5), dtype=np.uint8)])
    laid = run(Channels(order="rgb", background=(10, 20, 30)), clear, image_type("rgba"))
    alpha = clear[..., 3:] / 255
    assert np.abs(laid - (image * alpha + np.array([10, 20, 30]) * (1 - alpha))).max() <= 0.5


def test_the_centre_is_kept() -> None:
    image = noise(10, 7)
    assert np.array_equal(run(Crop(height=3, width=4), image), image[3:6, 1:5])
    assert run(Crop(fraction=0.875), image).shape == (9, 6, 3)
    assert np.array_equal(run(Crop(fraction=1.0, square=True), image), image[1:8])
    assert run(Crop(fraction=0.001), image).shape == (1, 1, 3)
    moved = Crop(height=3, width=4).move(geometry(10, 7))
    assert (moved.offset_y, moved.offset_x, moved.height, moved.width) == (-3, -1, 3, 4)
    with pytest.raises(DataError, match="7x10 pixels is cropped to 8x8"):
        run(Crop(height=8, width=8), image)
    with pytest.raises(UsageError, match="too small"):
        Crop(height=8, width=8).result((image_type("rgb", height=10, width=7),))


@pytest.mark.parametrize(
    ("height", "width", "want"), [(480, 640, (256, 341)), (640, 480, (341, 256)), (3, 3, (256, 256))]
)
def test_the_short_side_keeps_the_ratio(height: int, width: int, want: tuple[int, int]) -> None:
    step = ShortSide(size=256)
    assert step.sides(height, width) == want
    # torchvision.transforms.functional: int(size * long / short)
    assert max(want) == int(256 * max(height, width) / min(height, width))
    assert step.result((image_type("rgb", height=height, width=width),)).shape == (*want, 3)


def test_a_sliver_is_refused_before_it_grows() -> None:
    with pytest.raises(DataError, match="896000x224"):
        run(ShortSide(size=224), np.zeros((1, 4000, 3), np.uint8))


@pytest.mark.parametrize(
    "size", [(480, 640), (640, 480), (1, 999), (999, 1), (320, 320), (100, 90), (333, 77)]
)
def test_letterbox_keeps_the_ratio_and_fills_the_rest(size: tuple[int, int]) -> None:
    image = np.full((*size, 3), 200, np.uint8)
    made = run(Letterbox(height=320, width=256, fill=(7,)), image)
    top, left, height, width = Letterbox(height=320, width=256).place(*size)
    inside = made[top : top + height, left : left + width]
    assert made.shape == (320, 256, 3) and (inside == 200).all()
    assert (made == 200).all(axis=2).sum() == height * width and (made == 7).all(axis=2).sum() == (
        320 * 256 - height * width
    )
    # Ultralytics LetterBox: r = min(...), round(w * r), and borders round(d / 2 - 0.1).
    ratio = min(320 / size[0], 256 / size[1])
    assert (max(round(size[0] * ratio), 1), max(round(size[1] * ratio), 1)) == (height, width)
    assert (round((320 - height) / 2 - 0.1), round((256 - width) / 2 - 0.1)) == (top, left)


def test_letterbox_places() -> None:
    assert Letterbox(height=8, width=8, grow=False).place(4, 6) == (2, 1, 4, 6)
    assert Letterbox(height=8, width=8, anchor="top_left").place(4, 8) == (0, 0, 4, 8)
    assert Letterbox(height=8, width=8).place(10_000, 1) == (0, 3, 8, 1)


def test_normalize_is_one_product_and_one_sum() -> None:
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    image = noise(6, 5)
    step = Normalize(mean=mean, std=std)
    exact = (image / 255 - np.array(mean)) / np.array(std)
    assert np.abs(run(step, image) - exact).max() < 1e-6
    turned = ValueType(kind="image", shape=(3, None, None), dtype="uint8", order="rgb", layout="chw")
    chw = run(step, np.ascontiguousarray(image.transpose(2, 0, 1)), turned)
    assert np.array_equal(chw.transpose(1, 2, 0), run(step, image))
    factor, offset = step.factors(3)
    assert run(step, image)[0, 0, 1] == np.float32(np.float32(image[0, 0, 1]) * factor[1]) + offset[1]


def test_layout_goes_and_comes_back() -> None:
    image = noise(3, 5)
    chw = run(Layout(layout="chw"), image)
    assert np.array_equal(chw, image.transpose(2, 0, 1))
    said = Layout(layout="chw").result((RGB,))
    assert np.array_equal(run(Layout(layout="hwc"), chw, said), image)
    assert Layout(layout="hwc").result((said,)) == RGB


def test_points_follow_the_pixels_through_every_step() -> None:
    """A bright pixel lies, after all steps, where the geometry says."""
    image = np.zeros((120, 200, 3), np.uint8)
    image[60:64, 100:104] = 255
    steps = (
        Crop(fraction=0.9),
        ShortSide(size=150, antialias=True),
        Letterbox(height=96, width=96, fill=(0,), antialias=True),
        Resize(height=50, width=80, antialias=True),
    )
    place, value = geometry(120, 200), image
    for step in steps:
        place, value = step.move(place), step.apply((value,), Frame(given=(RGB,)))
    light = value[..., 0].astype(float)
    y, x = (np.average(np.arange(n) + 0.5, weights=light.sum(axis=a)) for n, a in ((50, 1), (80, 0)))
    assert (x - place.offset_x) / place.scale_x == pytest.approx(102, abs=0.5)
    assert (y - place.offset_y) / place.scale_y == pytest.approx(62, abs=0.5)
    assert (place.height, place.width) == (50, 80)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Resize(height=0, width=4), "height 0"),
        (lambda: Resize(height=4, width=1 << 20), "16384"),
        (lambda: Resize(height=4, width=4, method="area", antialias=True), "antialias"),
        (lambda: Resize(height=4, width=4, corners="align", antialias=True), "half_pixel"),
        (lambda: Letterbox(height=4, width=4, fill=(256,)), "fill"),
        (lambda: Letterbox(height=4, width=4, fill=()), "fill"),
        (lambda: Crop(), "fraction"),
        (lambda: Crop(height=2), "width 0"),
        (lambda: Crop(fraction=1.5), "1.5"),
        (lambda: Crop(height=2, width=2, square=True), "square"),
        (lambda: Normalize(std=(0.0,)), "std"),
        (lambda: Normalize(std=(1e-42,)), "float32"),
        (lambda: Channels(order="rgb", background=(1, 2)), "background"),
        (lambda: Normalize(mean=(0.1, 0.2)).result((RGB,)), "2 channels"),
        (lambda: Letterbox(height=4, width=4, fill=(1, 2)).result((RGB,)), "2 channels"),
        (lambda: Resize(height=4, width=4).result((Layout(layout="chw").result((RGB,)),)), "hwc"),
        (lambda: Channels(order="rgb").result((Normalize().result((RGB,)),)), "uint8"),
    ],
)
def test_what_no_image_can_have_is_refused(make: object, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        make()  # type: ignore[operator]
