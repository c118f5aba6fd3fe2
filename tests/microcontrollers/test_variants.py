"""Sums become outputs by the interpreter's rounding, and tables lie as the functions of the fast paths read them."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import pytest

from edgewright.core.errors import UnavailableError
from edgewright.microcontrollers import host
from edgewright.microcontrollers.fixed_point import Multiplier, clamped, scaled
from edgewright.microcontrollers.products import dot_product
from edgewright.microcontrollers.taps import blocked_scales, blocked_weights, suffix
from edgewright.microcontrollers.variants import VARIANTS, Ending

ENDINGS = (
    Ending(zero=-128, low=-128, high=127),  # a ReLU: what lies below the zero point is cut off
    Ending(zero=-11, low=-11, high=90),
    Ending(zero=5, low=-128, high=127),
    Ending(zero=127, low=-100, high=127),
)


def _build(text: str, folder: Path) -> ctypes.CDLL:
    source = folder / "built.c"
    source.write_text(
        f"#include <stddef.h>\n#include <stdint.h>\n#include <string.h>\n{text}", encoding="utf-8"
    )
    try:
        return ctypes.CDLL(str(host.build([source], folder / "built.so", flags=("-O1", "-shared", "-fPIC"))))
    except UnavailableError as err:
        pytest.skip(str(err))


@pytest.mark.parametrize("ending", ENDINGS)
def test_levels_are_rounded_twice_half_away_from_zero(ending: Ending, tmp_path: Path) -> None:
    call = (
        "int probe(int sum, int mantissa, int places);\n"
        "int probe(int sum, int mantissa, int places)\n"
        f"{{\n    return level{ending.suffix}(sum, mantissa, places);\n}}\n"
    )
    library = _build(f"{VARIANTS}{ending.level}{call}", tmp_path)
    draw = np.random.default_rng(9)
    for _ in range(4000):
        places = int(draw.integers(0, 12))
        mantissa = int(draw.choice([2**30, 2**31 - 1, int(draw.integers(2**30, 2**31))]))
        # Many sums end at a half or beside it.
        halves = int(draw.integers(-300, 300)) * 2 ** (places + 1) + int(draw.integers(-2, 3))
        total = int(np.clip(halves, -(2**30) + 1, 2**30 - 1))
        value = scaled(total, Multiplier(mantissa, -places - 1)) + ending.zero
        assert library.probe(total, mantissa, places) == clamped(value, ending.low, ending.high)


def test_a_dot_product_takes_every_length(tmp_path: Path) -> None:
    call = (
        "int probe(const signed char *w, const signed char *x, int depth, int sum);\n"
        "int probe(const signed char *w, const signed char *x, int depth, int sum)\n"
        "{\n    return dot(w, x, depth, sum);\n}\n"
    )
    library = _build("".join(dot_product()) + call, tmp_path)
    draw = np.random.default_rng(2)
    for depth in (1, 3, 4, 15, 16, 17, 250):
        left, right = draw.integers(-128, 128, (2, depth)).astype(np.int8)
        expected = int(left.astype(int) @ right.astype(int)) - 77
        assert library.probe(left.tobytes(), right.tobytes(), depth, -77) == expected


@pytest.mark.parametrize("channels", [1, 8, 13])
def test_tables_lie_in_blocks_of_eight_channels(channels: int) -> None:
    weights = np.arange(3 * channels).reshape(3, channels)
    laid = blocked_weights(weights)
    biases = [1000 + channel for channel in range(channels)]
    scales = blocked_scales(biases, [bias + 1000 for bias in biases])
    blocks = -(-channels // 8)
    assert len(laid) == 24 * blocks and len(scales) == 16 * blocks
    for channel in range(channels):
        block, within = divmod(channel, 8)
        assert [laid[24 * block + 8 * tap + within] for tap in range(3)] == weights[:, channel].tolist()
        place = 16 * block + 4 * (within % 2) + within // 2
        assert scales[place] == biases[channel]
        assert scales[place + 8] == biases[channel] + 1000


def test_pairs_that_leave_int16_are_not_added_in_it() -> None:
    ending = ENDINGS[0]
    weights = np.full((5, 2), -127)
    assert suffix(ending, weights) == f"5{ending.suffix}"
    weights[2:4, 1] = -128
    assert suffix(ending, weights) == f"5_wide{ending.suffix}"
    # The last tap of an odd number stays alone.
    alone = np.full((5, 2), -127)
    alone[4] = -128
    assert suffix(ending, alone) == f"5{ending.suffix}"
