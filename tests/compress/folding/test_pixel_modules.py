"""Images that are resized in the graph: the same pixels as of the reference."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewright.compress.folding.rules import why_not
from edgewright.core.tensors import Array
from edgewright.processing.resize import Letterbox, Resize, ShortSide
from edgewright.processing.step import Frame, Step
from edgewright.processing.values import image_type

torch = pytest.importorskip("torch")

METHODS = (
    ("nearest", False), ("bilinear", False), ("bicubic", False), ("area", False), ("bilinear", True),
    ("bicubic", True),
)  # fmt: skip


def both(step: Step, image: Array) -> tuple[Array, Array]:
    """Return what the reference and the graph's operators make of `image`."""
    from edgewright.compress.folding.graph_modules import operator_of

    kind = replace(image_type("rgb", height=image.shape[0], width=image.shape[1]), dtype=str(image.dtype))
    assert not why_not(step, (kind,))
    want = step.apply((image,), Frame(given=(step.result((kind,)),)))
    return want, operator_of(step, (kind,))(torch.from_numpy(image)[None])[0].numpy()


@st.composite
def resizes(draw: st.DrawFn) -> tuple[Step, Array]:
    sides = st.integers(1, 40)
    method, antialias = draw(st.sampled_from(METHODS))
    shape = draw(sides), draw(sides), 3
    step: Step
    kind = draw(st.sampled_from(("resize", "short_side", "letterbox")))
    height, width = draw(sides), draw(sides)
    if kind == "resize":
        is_free = method != "area" and not antialias
        corners = draw(st.sampled_from(("half_pixel", "align", "asymmetric"))) if is_free else "half_pixel"
        step = Resize(height=height, width=width, method=method, antialias=antialias, corners=corners)  # type: ignore[arg-type]
    elif kind == "short_side":
        step = ShortSide(size=height, method=method, antialias=antialias)  # type: ignore[arg-type]
    else:
        fill = draw(st.sampled_from(((114,), (0, 128, 255))))
        step = Letterbox(height=height, width=width, method=method, antialias=antialias, fill=fill)  # type: ignore[arg-type]
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return step, generator.integers(0, 256, size=shape).astype(np.uint8)


@settings(max_examples=80, deadline=None)
@given(resizes())
def test_pixels_are_those_of_the_reference(drawn: tuple[Step, Array]) -> None:
    step, image = drawn
    if why_not(step, (image_type("rgb", height=image.shape[0], width=image.shape[1]),)):
        return
    want, got = both(step, image)
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize(("method", "antialias"), METHODS)
def test_a_photograph_of_a_camera_is_the_same(method: str, antialias: bool) -> None:
    down, across = np.mgrid[0:240, 0:320]
    waves = [127 + 100 * np.sin(down / (5 + c)) * np.cos(across / (7 - c)) for c in range(3)]
    image = np.stack(waves, axis=-1).astype(np.uint8)
    want, got = both(Resize(height=32, width=48, method=method, antialias=antialias), image)  # type: ignore[arg-type]
    np.testing.assert_array_equal(got, want)


def test_numbers_that_are_no_pixels_are_not_rounded() -> None:
    image = np.random.default_rng(0).random((9, 7, 3)).astype(np.float32)
    want, got = both(Resize(height=4, width=5, antialias=True), image)
    np.testing.assert_allclose(got, want, atol=1e-6)


def test_a_filter_over_too_many_pixels_stays_outside() -> None:
    step = Resize(height=8, width=8, method="bicubic", antialias=True)
    assert "pixels in a row make one of 8x8" in why_not(step, (image_type("rgb", height=160, width=160),))
