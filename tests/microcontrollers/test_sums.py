"""Biases that decide an output alone become small ones that give the same output."""

from __future__ import annotations

import numpy as np

from edgewright.microcontrollers.fixed_point import Multiplier, clamped, multiplier_of, scaled
from edgewright.microcontrollers.sums import _settled
from edgewright.microcontrollers.variants import Ending

ENDING = Ending(zero=-5, low=-128, high=127)


def _output(total: int, by: Multiplier) -> int:
    return clamped(scaled(total, by) + ENDING.zero, ENDING.low, ENDING.high)


def test_a_channel_that_is_switched_off_gets_a_small_bias() -> None:
    draw = np.random.default_rng(3)
    for _ in range(300):
        bias = int(draw.choice([-1, 1])) * int(draw.integers(2**30, 2**31 - 2**22))
        spread = int(draw.integers(0, 2**20))
        by = multiplier_of(float(10.0 ** draw.uniform(-12, -1)))
        biases, factors = _settled(np.array([bias]), np.array([spread]), [by], ENDING)
        ends = {_output(bias - spread, by), _output(bias + spread, by)}
        if len(ends) > 1:
            assert biases[0] == bias and factors[0] == by
            continue
        small = int(biases[0])
        assert abs(small) + spread < 2**30
        made = {_output(small + end, factors[0]) for end in (-spread, -spread // 2, 0, spread // 2, spread)}
        assert made == ends


def test_other_biases_stay() -> None:
    biases, factors = _settled(
        np.array([100, 2**31 - 5, 2**30]), np.array([50, 50, 2**20]), [multiplier_of(0.01)] * 3, ENDING
    )
    assert biases.tolist()[:2] == [100, 2**31 - 5]
    assert factors[0] == multiplier_of(0.01)
