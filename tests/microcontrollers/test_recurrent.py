"""The int8 LSTM: quick functions give the bits of plain ones, and the curves those of the interpreter's formula."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path

import numpy as np
import pytest
from tests.microcontrollers.c_models import open_model, random_rows
from tests.microcontrollers.generated import KINDS

from edgewright.core.errors import UnavailableError
from edgewright.microcontrollers import arithmetic, host, recurrent
from edgewright.microcontrollers.emit import compile_model
from edgewright.microcontrollers.fixed_point import Multiplier
from edgewright.microcontrollers.products import word_products
from edgewright.microcontrollers.recurrent_cells import Cell, part_of
from edgewright.microcontrollers.recurrent_gates import GATES
from edgewright.microcontrollers.wide import sigmoid_table

# Of C99; clang refuses longer ones under -pedantic.
LONGEST_STRING = 4095


@pytest.mark.toolchain("ai_edge_litert")
@pytest.mark.parametrize("seed", range(6))
def test_quick_and_plain_layers_agree(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "lstm.tflite"
    KINDS["unidirectional_sequence_lstm"](np.random.default_rng(seed), path)
    quick = compile_model(path, name="lstm")
    monkeypatch.setattr(recurrent, "_is_quick", lambda *_: False)
    plain = compile_model(path, name="lstm")
    assert "gate_sigmoid" in quick.source and "gate_sigmoid" not in plain.source
    ours, theirs = open_model(quick, tmp_path / "quick"), open_model(plain, tmp_path / "plain")
    for row in random_rows(plain, 5, seed):
        assert ours.run(row)[0].tobytes() == theirs.run(row)[0].tobytes()


def test_curves_are_the_formula_for_every_value(tmp_path: Path) -> None:
    """The table is odd; the interpreter's has the positive half alone, and is turned around for negative values."""
    table = sigmoid_table("curve")
    probes = "".join(
        f"int {name}(int value);\nint {name}(int value)\n{{\n    return {call};\n}}\n"
        for name, call in (
            ("quick_sigmoid", "gate_sigmoid(3 * value, curve_sigmoid + 512, (1 << 24) + (1 << 9))"),
            ("quick_tanh", "gate_tanh(3 * value, curve_sigmoid + 512)"),
            ("plain_sigmoid", "sigmoid16(3 * value, curve_sigmoid)"),
            ("plain_tanh", "tanh16(3 * value, curve_sigmoid)"),
        )
    )
    source = tmp_path / "curves.c"
    source.write_text(
        "#include <stddef.h>\n#include <stdint.h>\n#include <string.h>\n"
        + "".join(
            (
                table.definition,
                arithmetic.definitions(("sigmoid16", "tanh16")),
                *word_products(has_four=False),
                GATES,
            )
        )
        + probes
    )
    try:
        built = host.build([source], tmp_path / "curves.so", flags=("-O1", "-shared", "-fPIC"))
    except UnavailableError as err:
        pytest.skip(str(err))
    library = ctypes.CDLL(str(built))
    stored = [int(word) for word in table.values.replace("\n", "").split(",") if word.strip()]
    half = [low + 32768 for low in stored[512::2]]
    for value in range(-32768, 32768):
        size = 3 * abs(value)
        at, rest = size >> 9, size & 511
        whole = (half[at] << 9) + rest * (half[at + 1] - half[at])
        expected = (whole + 512 if value >= 0 else (1 << 25) - whole + 511) >> 10
        assert library.quick_sigmoid(value) == library.plain_sigmoid(value) == expected
        at, rest = size >> 8, size & 255
        whole = (half[at] << 8) + rest * (half[at + 1] - half[at]) if at < 255 else 0xFFFF << 8
        expected = (whole - (1 << 23) + 128 if value >= 0 else (1 << 23) - whole + 127) >> 8
        assert library.quick_tanh(value) == library.plain_tanh(value) == expected


@pytest.mark.parametrize("depth", [1, 4, 31, 40, 44, 1000])
def test_strings_of_instructions_are_within_what_c99_allows(depth: int) -> None:
    part = part_of(Multiplier(1 << 30, -3))
    cell = Cell(
        depth=depth, units=24, batch=1, times=2, in_batch=2, in_time=1, gates=((part, part),) * 4, keep=15,
        take=18, shift=0, give=part, zero=3, clip=0,
    )  # fmt: skip
    strings = re.findall(r'(?:\s*"[^"\n]*")+', cell.text)
    lengths = [sum(map(len, re.findall(r'"([^"\n]*)"', one))) for one in strings]
    assert max(lengths) <= LONGEST_STRING
    # Four values of four gates: one load of the values, and five instructions a gate.
    assert cell.text.count("ldrd %[left]") >= min(depth // 4, 5)
