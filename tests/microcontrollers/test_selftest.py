"""A self-test that is read again is the template with other numbers, or no self-test."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from edgewright.microcontrollers import selftest
from edgewright.microcontrollers.emit import CModel, compile_model, golden_inputs, seed_of

pytestmark = pytest.mark.toolchain("ai_edge_litert")
SOURCE = "LiteRT Micro 0.dev1+2"


@pytest.fixture(scope="module")
def model(assets: Path) -> CModel:
    return compile_model(assets / "models/tflite-micro/hello_world_int8.tflite", name="hello")


def _text(model: CModel, values: np.ndarray) -> str:
    outputs = [(np.asarray(value, dtype=values.dtype).reshape(1, 1),) for value in values]
    return selftest.test_text(
        model.graph, model.name, model.plan, outputs, seed=seed_of(model), source=SOURCE
    )


def _author(model: CModel, text: str) -> str:
    return selftest.author_of(text, model.graph, model.name, model.plan, seed=seed_of(model))


def test_who_computed_the_outputs_is_read_back(model: CModel) -> None:
    assert _author(model, _text(model, np.arange(-10, 10, dtype=np.int8))) == SOURCE


def test_one_character_elsewhere_than_in_a_table_is_noticed(model: CModel, rng: np.random.Generator) -> None:
    text = _text(model, np.arange(-10, 10, dtype=np.int8))
    table = re.search(r"expected_output\[20\] = \{\n([^}]*)\n\};", text)
    head = re.match(r".*expected: (.*)\. \*/", text)
    assert table is not None and head is not None
    free = [range(*table.span(1)), range(*head.span(1))]  # numbers, and the name of who computed them
    near = np.arange(table.start() - 40, table.end() + 5)  # the table's own type, name and size too
    for place in [*near, *rng.integers(0, len(text), 100)]:
        other = rng.choice(list('aZ09_;"*/{}()\n -\\#'))
        if text[place] == other or any(place in span for span in free):
            continue
        with pytest.raises(ValueError, match=r"^its? "):
            _author(model, text[:place] + other + text[place + 1 :])


@pytest.mark.parametrize("body", ["sizeof(int)", "system()", "0x41", "'a'", "1 /* */", "1}; int x = {1", "a"])
def test_a_table_holds_numbers_alone(body: str, model: CModel) -> None:
    text = _text(model, np.zeros(20, dtype=np.int8)).replace("= {\n    0,", f"= {{\n    {body},")
    with pytest.raises(ValueError, match=r"^its? "):
        _author(model, text)


def test_outputs_without_a_constant_of_c_are_told_by_a_checksum(model: CModel) -> None:
    text = _text(model, np.array([np.inf, np.nan, *range(18)], dtype=np.float32))
    assert "static const uint32_t expected_output[20]" in text
    assert f"{selftest.checksum(np.float32(np.inf).tobytes())}" in text
    assert _author(model, text) == SOURCE


def test_the_inputs_are_those_of_the_generator_in_c(model: CModel) -> None:
    state, want = seed_of(model), []
    for _ in range(20):
        state = (state * 1664525 + 1013904223) % 2**32
        want.append((state >> 16 >> 8) - 128)
    assert [int(row[0].item()) for row in golden_inputs(model)] == want
