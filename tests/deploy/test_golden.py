"""Golden cases: the same after a round trip, and every kind of difference found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.colour_model import SIZE, colour_specification, plain_image

from edgewright.core.errors import IntegrityError, UsageError
from edgewright.core.tensors import TensorSpec
from edgewright.deploy.golden import (
    GOLDEN_NAME,
    Case,
    compare_result,
    compare_tensor,
    read_golden,
    write_golden,
)
from edgewright.deploy.names import KEYWORDS, camel_case, check_name, check_version, plain_name, snake_case
from edgewright.deploy.templates import text_literal
from edgewright.processing.processor import Signature, plan
from edgewright.processing.specification import RawInput
from edgewright.processing.synthetic import synthetic_raw

PLAN = plan(
    colour_specification(),
    Signature(
        inputs=(TensorSpec(name="pixels", shape=(1, 3, SIZE, SIZE), dtype="float32"),),
        outputs=(TensorSpec(name="means", shape=(1, 3), dtype="float32"),),
    ),
)
CASE = Case(
    name="one",
    raw={"image": plain_image(1, 2, 3)},
    tensors={"pixels": np.linspace(-1, 1, 3 * SIZE * SIZE, dtype=np.float32).reshape(1, 3, SIZE, SIZE)},
    outputs={"means": np.ones((1, 1, 3), dtype=np.float32)},
    results={"colours": np.array([[2, 0.5], [1, 0.3], [0, 0.2]], dtype=np.float32)},
)


def test_cases_are_the_same_after_a_round_trip(tmp_path: Path) -> None:
    write_golden((CASE,), PLAN, tmp_path)
    (again,) = read_golden(tmp_path)
    for have, want in (
        (again.raw, CASE.raw),
        (again.tensors, CASE.tensors),
        (again.results, CASE.results),
        (again.outputs, CASE.outputs),
    ):
        assert set(have) == set(want)
        assert all(np.array_equal(have[name], want[name]) for name in want)


@pytest.mark.parametrize("damage", ["list", "shape", "place", "missing"])
def test_damaged_cases_are_refused(tmp_path: Path, damage: str) -> None:
    write_golden((CASE,), PLAN, tmp_path)
    file = tmp_path / GOLDEN_NAME
    text = file.read_text()
    if damage == "missing":
        next(tmp_path.glob("0_tensors*")).unlink()
    changed = {
        "list": text.replace('"cases": [', '"cases": 3, "more": ['),
        "shape": text.replace("21", "22"),
        "place": text.replace('"0_inputs_0.bin"', '"../0_inputs_0.bin"'),
        "missing": text,
    }[damage]
    file.write_text(changed)
    with pytest.raises(IntegrityError):
        read_golden(tmp_path)


def test_a_tensor_may_differ_by_rounding_only() -> None:
    want = CASE.tensors["pixels"]
    assert compare_tensor("pixels", want, want + np.float32(5e-6)) == ""
    assert "differs" in compare_tensor("pixels", want, want[:, ::-1])
    assert "differs" in compare_tensor("pixels", want, np.full_like(want, np.nan))
    assert "expected" in compare_tensor("pixels", want, want[0])
    steps = np.arange(10, dtype=np.int8)
    assert compare_tensor("x", steps, steps + np.int8(1)) == ""
    assert "differs" in compare_tensor("x", steps, steps + np.int8(2))


def test_results_may_differ_by_what_other_kernels_explain() -> None:
    want = CASE.results["colours"]
    near, far = want + np.float32([0, 0.01]), want + np.float32([0, 0.03])
    assert compare_result("colours", "classes", want, near, side=1) == ""
    assert "score" in compare_result("colours", "classes", want, far, side=1)
    assert "class" in compare_result("colours", "classes", want, want[::-1], side=1)
    assert "rows" in compare_result("colours", "classes", want, want[:2], side=1)
    boxes = np.array([[10, 10, 60, 60, 0.9, 1]], dtype=np.float32)
    assert compare_result("faces", "boxes", boxes, boxes + np.float32([1, 0, 0, 0, 0, 0]), side=100) == ""
    assert "corner" in compare_result(
        "faces", "boxes", boxes, boxes + np.float32([3, 0, 0, 0, 0, 0]), side=100
    )
    mask = np.zeros((10, 10), np.uint8)
    assert compare_result("mask", "mask", mask, mask, side=10) == ""
    assert "agrees" in compare_result("mask", "mask", mask, np.tri(10, dtype=np.uint8), side=10)


def test_synthetic_inputs_are_the_same_each_time_and_tell_colours_and_corners_apart() -> None:
    row = RawInput(name="image", kind="image")
    first, second = (synthetic_raw(row, 1, (61, 47, 3)) for _ in range(2))
    assert np.array_equal(first, second)
    for turned in (first[..., ::-1], first[::-1], first[:, ::-1]):
        assert np.abs(first.astype(int) - turned).mean() > 20


@pytest.mark.parametrize(
    "name", ["birds", "Bird-Finder", "", "../Birds", "Birds\n", "String", "B" * 41, "Vögel"]
)
def test_bad_bundle_names_are_refused(name: str) -> None:
    with pytest.raises(UsageError):
        check_name(name)
    assert check_name("BirdFinder") == "BirdFinder"


@pytest.mark.parametrize("version", ["1", "1.0", "1.0.0-rc", "1.0.0\n", "a.b.c"])
def test_bad_versions_are_refused(version: str) -> None:
    with pytest.raises(UsageError):
        check_version(version)


def test_names_are_cased_and_never_keywords() -> None:
    assert snake_case("BirdFinder2") == "bird_finder2"
    assert camel_case("face_boxes", "kotlin") == "faceBoxes"
    for language, words in KEYWORDS.items():
        for word in words:
            assert camel_case(word.lower(), language) not in words
            assert plain_name(word, language) not in words


def test_a_literal_cannot_be_left() -> None:
    literal = text_literal('a"b\\c (é)')
    assert literal == '"a\\"b\\\\c (é)"'
    for text in ("${x}", "$x", "a\nb", "a\u2028b", "a\u202eb", "\0", "\ud800"):
        with pytest.raises(UsageError, match="Rename"):
            text_literal(text)
