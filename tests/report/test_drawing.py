"""Pictures of results: every kind leaves its mark, and text hides nothing."""

from __future__ import annotations

import numpy as np
import pytest
from tests.colour_model import plain_image

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
    result_lines,
)
from edgewright.report.drawing import draw_results

GREY = plain_image(128, 128, 128, height=90, width=120)
LABEL = Label(index=3, name="great white shark, white shark", score=0.5)
RESULTS: dict[str, Result] = {
    "classes": Classes(labels=(LABEL,)),
    "boxes": Boxes(
        boxes=(Box(x0=-5, y0=10, x1=60, y1=500, label=LABEL, points=(Point(x=9, y=9, score=1),)),)
    ),
    "mask": Mask(
        classes=np.repeat([[0, 1, 7]], 90, axis=0).repeat(40, axis=1).astype(np.uint8), names=("a", "b")
    ),
    "points": Points(points=(Point(x=30, y=40, score=0.5),)),
    "text": Text(codes=(1, 2), text="ab"),
}


@pytest.mark.parametrize("kind", list(RESULTS))
def test_every_kind_leaves_its_mark_on_an_image(kind: str) -> None:
    plain = np.asarray(draw_results({"image": GREY}, {}))
    drawn = np.asarray(draw_results({"image": GREY}, {kind: RESULTS[kind]}))
    is_below = kind in ("classes", "text")
    assert drawn.shape[1] == plain.shape[1]
    assert (drawn.shape[0] > plain.shape[0]) == (is_below or kind == "mask")
    over = drawn[: plain.shape[0]]
    assert np.array_equal(over, plain) == is_below  # what is text lies below and hides no pixel
    assert result_lines(kind, RESULTS[kind])


def test_sound_and_curves_are_drawn_in_rows() -> None:
    sound = np.sin(np.arange(4000) / 9).astype(np.float32)
    results = {
        "clean": Waveform(samples=sound, rate_hz=16_000),
        "speech": Values(array=np.linspace(0, 1, 50)),
    }
    one = draw_results({"sound": sound}, {})
    three = draw_results({"sound": sound}, results)
    assert three.height > 2.5 * one.height
    rows = np.array_split(np.asarray(three), 3)
    assert all((row.min(axis=2) < 100).sum() > 500 for row in rows)  # each row has its curve


def test_nothing_to_draw_is_a_picture_all_the_same() -> None:
    assert draw_results({}, {"none": Classes(labels=())}).width > 0
    assert draw_results({"silence": np.zeros(0, np.float32)}, {}).height > 0


def test_blue_before_red_is_drawn_in_its_own_colours() -> None:
    red_first = plain_image(250, 10, 60, height=90, width=120)
    shown = [
        np.asarray(draw_results({"image": red_first}, {})),
        np.asarray(draw_results({"image": red_first[..., ::-1]}, {}, orders={"image": "bgr"})),
    ]
    np.testing.assert_array_equal(shown[0], shown[1])


def test_a_curve_without_numbers_is_drawn() -> None:
    array = np.array([np.nan, np.inf, -np.inf, *range(20)])
    assert draw_results({}, {"speech": Values(array=array)}).height > 0


def test_runs_of_a_stream_are_lines_below_its_sound() -> None:
    sound = np.sin(np.arange(4000) / 9).astype(np.float32)
    runs = Runs(runs=(Classes(labels=(LABEL,)),) * 40, run_s=0.5)
    alone, with_runs = (draw_results({"sound": sound}, made) for made in ({}, {"words": runs}))
    assert with_runs.height == alone.height + 30 * 13
