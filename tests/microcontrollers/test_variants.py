"""Sums become outputs by the interpreter's rounding, and tables lie as the functions of the fast paths read them."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from edgewright.core.errors import UnavailableError
from edgewright.microcontrollers import host
from edgewright.microcontrollers.emit import compile_model, write_sources
from edgewright.microcontrollers.fixed_point import Multiplier, clamped, scaled
from edgewright.microcontrollers.products import dot_product
from edgewright.microcontrollers.qemu import DEVICES
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


@pytest.mark.parametrize(
    ("flags", "is_fast"),
    [
        ("-mcpu=cortex-m4 -mthumb", True),
        ("-mcpu=cortex-m4 -mthumb -DEDGEWRIGHT_PORTABLE", False),
        ("-mcpu=cortex-m4 -mthumb -mbig-endian", False),
        ("-march=armv7-a -marm", False),
        ("-march=armv7-a -mthumb", False),
        ("-march=armv6 -marm", False),
        ("-march=armv5te -marm", False),
    ],
)
def test_instructions_of_microcontrollers_are_left_to_them(
    flags: str, is_fast: bool, assets: Path, tmp_path: Path
) -> None:
    made = DEVICES["cortex-m4"]
    if made.tools.missing:
        pytest.skip(f"needs {', '.join(made.tools.missing)}; run: {made.tools.fix}")
    path = assets / "models" / "mlperf-tiny" / "kws_dscnn_int8.tflite"
    source, _ = write_sources(compile_model(path, name="kws"), tmp_path)
    listing, built = tmp_path / "kws.s", tmp_path / "kws.o"
    command = [made.compiler, *flags.split(), "-mfloat-abi=soft", "-O2", *host.WARNINGS, str(source), "-o"]
    for more in ([str(listing), "-S"], [str(built), "-c"]):
        done = subprocess.run([*command, *more], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert ("sxtb16" in listing.read_text()) is is_fast
    assert ("smlad" in listing.read_text()) is is_fast


@pytest.mark.parametrize("core", ["cortex-m3", "cortex-m4", "cortex-m55"])
@pytest.mark.parametrize("model", ["mlperf-tiny/kws_dscnn_int8", "tflite-micro/trained_lstm_int8"])
def test_clang_warns_of_nothing(core: str, model: str, assets: Path, tmp_path: Path) -> None:
    """It warns of functions that no variant calls, of long strings, and has an assembler of its own."""
    made, clang = DEVICES[core], shutil.which("clang")
    if clang is None or made.tools.missing:
        pytest.skip(f"needs clang, {', '.join(made.tools.missing)}")
    source, _ = write_sources(compile_model(assets / "models" / f"{model}.tflite", name="model"), tmp_path)
    asked = [made.compiler, *made.flags, "-M", "-include", "string.h", "-xc", "/dev/null"]
    listed = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split()
    (folder,) = {Path(one).parent for one in listed if one.endswith("/string.h") and "sys" not in one}
    command = [
        clang,
        "--target=arm-none-eabi",
        "-isystem",
        str(folder),
        *made.flags,
        "-O2",
        *host.WARNINGS,
        "-c",
    ]
    done = subprocess.run(
        [*command, str(source), "-o", str(tmp_path / "model.o")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


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
