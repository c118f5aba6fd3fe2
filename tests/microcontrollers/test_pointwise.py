"""What C computes without a mathematical library, against numpy: every rounding that is promised to be exact."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from tests.microcontrollers.c_models import run_rows
from tests.microcontrollers.generated import Maker

from edgewright.core.tensors import Array
from edgewright.microcontrollers.fixed_point import high_product
from edgewright.microcontrollers.roots import inverse_root

pytestmark = pytest.mark.toolchain("ai_edge_litert")
COUNT = 4096


def _one(name: str, values: Array, folder: Path) -> Array:
    made = Maker()
    x, y = (made.tensor(values.shape, "float32") for _ in range(2))
    made.operator(name, [x], [y])
    own = folder / name.lower()  # a library is loaded once from a path
    own.mkdir()
    return run_rows(made.write(own / "model.tflite", [x], [y]), [[values]], own)[0][0]


def _bits(seed: int) -> Array:
    """Return float32 of every size: random bits without NaN."""
    drawn = np.random.default_rng(seed).integers(0, 2**32, COUNT, dtype=np.uint32).view(np.float32)
    edges = np.array(
        [0, -0.0, 1, 2, 0.25, 1e-45, 1e-40, 3.4e38, np.inf, 4, 9, 2**24, 0.5, 1.5, 2.5, -0.5, -0.3, -1]
    )
    drawn[: len(edges)] = edges
    return np.nan_to_num(drawn, posinf=np.inf, neginf=-np.inf)


def test_square_roots_are_exactly_rounded(tmp_path: Path) -> None:
    values = np.abs(_bits(1))
    values[1] = -0.0
    np.testing.assert_array_equal(
        _one("SQRT", values, tmp_path).view(np.uint32), np.sqrt(values).view(np.uint32)
    )


@pytest.mark.parametrize(("name", "function"), [("FLOOR", np.floor), ("CEIL", np.ceil), ("ROUND", np.rint)])
def test_whole_numbers_are_numpys(name: str, function: np.ufunc, tmp_path: Path) -> None:
    values = np.concatenate([_bits(2), np.arange(-64, 64, dtype=np.float32) / 4]).astype(np.float32)
    found, want = _one(name, values, tmp_path), function(values).astype(np.float32)
    np.testing.assert_array_equal(found, want)
    if name != "ROUND":  # where the interpreter forgets the sign of a zero
        np.testing.assert_array_equal(np.signbit(found), np.signbit(want))


@pytest.mark.parametrize(
    ("name", "function", "low", "high"),
    [
        ("EXP", np.exp, -100, 88),
        ("LOG", np.log, 1e-40, 1e38),
        ("ELU", np.expm1, -50, 0),
        ("TANH", np.tanh, -20, 20),
    ],
)
def test_transcendental_functions_are_near(
    name: str, function: np.ufunc, low: float, high: float, tmp_path: Path
) -> None:
    draw = np.random.default_rng(3)
    if name == "LOG":
        values = np.exp(draw.uniform(math.log(low), math.log(high), COUNT)).astype(np.float32)
    else:
        values = draw.uniform(low, high, COUNT).astype(np.float32)
    found = _one(name, values, tmp_path).astype(np.float64)
    want = function(values.astype(np.float64))
    assert float(np.max(np.abs(found - want) / (np.abs(want) + 1e-30))) < 2e-7


def test_edges_of_exp_and_log(tmp_path: Path) -> None:
    assert _one("EXP", np.array([89, -150, 0], dtype=np.float32), tmp_path).tolist() == [math.inf, 0, 1]
    found = _one("LOG", np.array([0, -1, math.inf, 1], dtype=np.float32), tmp_path)
    assert found[0] == -math.inf and math.isnan(found[1]) and found[2] == math.inf and found[3] == 0


def test_inverse_roots_of_integers_are_near() -> None:
    for value in [1, 2, 3, 4, 5, 7, 100, 65535, 2**20 + 1, 2**29 - 1, 2**29, 2**30, 2**31 - 1]:
        by = inverse_root(value)
        assert by.mantissa / 2**31 * 2.0**by.shift == pytest.approx(value**-0.5, rel=4e-6)
    assert high_product(1 << 30, 1 << 30) == 1 << 29
