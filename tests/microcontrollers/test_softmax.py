"""Softmax of two values by their difference is the general softmax, bit by bit."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest

from edgewright.core.errors import UnavailableError
from edgewright.microcontrollers import arithmetic, host, softmax
from edgewright.microcontrollers.layer import integers, render


@pytest.mark.parametrize(("beta", "scale"), [(1.0, 0.0123), (1.0, 0.17), (0.3, 1.0), (2.5, 0.4)])
def test_two_values_give_what_the_general_function_gives(beta: float, scale: float, tmp_path: Path) -> None:
    powers = softmax.exponentials(beta, scale)
    values = {"rows": 1, "depth": 2, "size": len(powers), "sum_bits": softmax._SUM_BITS}
    needs = ("shift_right", "high_product", "leading_zeros", "reciprocal", "clamped")
    source = tmp_path / "softmax.c"
    source.write_text(
        "#include <stdint.h>\n"
        + integers("powers", "int32_t", powers, 4).definition
        + arithmetic.definitions(needs)
        + render(softmax._SOFTMAX, values).replace("@", "general")
        + "void probe(const int8_t *in, int8_t *out);\n"
        "void probe(const int8_t *in, int8_t *out)\n{\n    general(in, out, powers);\n}\n"
    )
    try:
        built = host.build([source], tmp_path / "softmax.so", flags=("-O1", "-shared", "-fPIC"))
    except UnavailableError as err:
        pytest.skip(str(err))
    library = ctypes.CDLL(str(built))
    out = (ctypes.c_int8 * 2)()
    for more in range(-255, 256):
        low = max(-128, -128 - more)
        library.probe((ctypes.c_int8 * 2)(low + more, low), out)
        assert list(out) == [softmax.of_two(more, powers), softmax.of_two(-more, powers)]
        assert abs(sum(out)) <= 1
