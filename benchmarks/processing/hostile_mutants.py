"""processing.toml of every preset, changed at random: refused in a sentence, or run in numpy and made C."""

from __future__ import annotations

import copy
import random
import re
import tomllib
import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import tomli_w
from benchmarks.processing.hostile_cases import Tally, watched
from benchmarks.processing.hostile_subjects import SUBJECTS, preset

from edgewright.core.errors import ConversionError
from edgewright.core.tensors import Arrays
from edgewright.processing.c_program import COptions, make_program
from edgewright.processing.c_writer import source_text
from edgewright.processing.planning import Plan, plan
from edgewright.processing.processor import Processor
from edgewright.processing.registry import STEPS
from edgewright.processing.results import result_lines, typed_result
from edgewright.processing.signature import Signature
from edgewright.processing.specification import (
    PROCESSING_NAME,
    read_specification,
    specification_text,
    write_specification,
)
from edgewright.processing.synthetic import synthetic_raw, synthetic_shape

Place = tuple[str | int, ...]
_TOKEN = re.compile(r'"[^"\n]*"|[A-Za-z_]+|-?\d[\d.e+-]*|\[\[|\]\]|[\[\]{}=,]|\n')
_TOKENS = (
    *("0", "-1", "1e300", "nan", "-inf", "9" * 30, "true", '""', f'"{"x" * 300}"', "[]", "{}", "[[1]]", "3.5", "65536"),
    *("1979-05-27", "0x7f", "07:32:00", "'''", '"', "#", "\\", "\0", "[[", "=", "\u202e"),
)  # fmt: skip
_NUMBERS: tuple[int | float, ...] = (
    *(0, -1, 1, 2, 3, 7, 16, 255, 256, 1000, 16_384, 16_385, 65_536, 2**31 - 1, 2**31, -(2**31), 2**63 - 1, 2**70),
    *(0.5, -0.5, 1e-30, 1e30, 1e300, 5e-324, -1e300, 0.0, -0.0, 1e-7),
)  # fmt: skip
_WORDS = (
    *("", "x", "y", "rgb", "bgr", "grey", "rgba", "chw", "hwc", "image", "sound", "float32", "uint8", "int8", "int64"),
    *("string", "bool", "audio", "series", "landmarks", "text", "tensor", "linear", "gaussian", "nearest", "area"),
    *("align", "../x", "labels.txt", "processing.toml", "a" * 200, "\u202e", "\0", "\u00e9", '"];', "..", *STEPS),
)  # fmt: skip


def mutants(work: Path, tally: Tally, *, count: int, seed: int) -> None:
    """Run `count` mutants of each preset."""
    tokens = [token for name in SUBJECTS for token in _TOKEN.findall(specification_text(preset(name)[0]))]
    tokens = [*dict.fromkeys(tokens), *_TOKENS]
    for name in SUBJECTS:
        specification, signatures = preset(name)
        write_specification(specification, work)
        text = specification_text(specification)
        generator = random.Random(f"{seed} {name}")
        for number in range(count):
            change = _of_tokens if number % 4 == 0 else _of_values
            made = change(text, generator, tokens)
            (work / PROCESSING_NAME).write_text(made, encoding="utf-8", errors="surrogatepass")
            with (
                watched(tally, "mutants", f"{name} {number}, seed {seed}"),
                warnings.catch_warnings(action="error"),
            ):
                _use(work, signatures, number)
                tally.add("mutants", "right")


def _use(folder: Path, signatures: dict[str, Signature], seed: int) -> None:
    """Read the specification in `folder`, write it again, make it C, and run it.

    Raises:
        EdgewrightError: one of these refuses it.
        AssertionError: it is another one when it is read again.
    """
    specification = read_specification(folder)
    checked = plan(specification, signatures)
    checked.lines()
    again = read_specification(write_specification(specification, folder / "again"))
    assert again == specification, "it is another one when it is read again"
    with suppress(ConversionError):  # what has no C is still run in numpy
        source_text(make_program(checked, name="mutant", options=COptions()))
    raw = {
        row.name: synthetic_raw(row, 0, synthetic_shape(row, checked, sides=(40, 60)))
        for row in specification.inputs
    }
    results = Processor(checked).run(raw, _model(checked, seed))
    for flow in specification.results:
        found = typed_result(results[flow.name], checked.results[flow.name], flow.labels)
        found.to_json()
        result_lines(flow.name, found)


def _model(checked: Plan, seed: int) -> object:
    """Return a model that gives noise, NaN and infinite numbers."""
    generator = np.random.default_rng(seed)

    def execute(model: str, inputs: Arrays) -> Arrays:
        made = {}
        for spec in checked.signatures[model].outputs:
            shape = tuple(size or 1 for size in spec.shape)
            array = generator.standard_normal(shape) * 10
            if spec.dtype == "float32":
                array[generator.random(shape) < 0.05] = np.nan
                array[generator.random(shape) < 0.05] = np.inf
            made[spec.name] = array.astype(spec.dtype)
        return made

    return execute


def _of_tokens(text: str, generator: random.Random, tokens: list[str]) -> str:
    """Return `text` with tokens deleted, replaced, repeated or exchanged."""
    found, between = _TOKEN.findall(text), _TOKEN.split(text)
    for _ in range(generator.choice((1, 1, 1, 2, 3))):
        one, other = generator.randrange(len(found)), generator.randrange(len(found))
        way = generator.randrange(4)
        if way == 3:
            found[one], found[other] = found[other], found[one]
        else:
            found[one] = ("", generator.choice(tokens), f"{found[one]} {found[one]}")[way]
    return "".join(a + b for a, b in zip(between, [*found, ""], strict=True))


def _of_values(text: str, generator: random.Random, tokens: list[str]) -> str:
    """Return `text` with values deleted, replaced, repeated or exchanged: it stays TOML."""
    record = tomllib.loads(text)
    for _ in range(generator.choice((1, 1, 2, 3))):
        *way, last = generator.choice([place for place in _places(record) if place])
        at = record
        for key in way:
            at = at[key]  # type: ignore[index]
        _change(at, last, generator)
    return tomli_w.dumps(record)


def _places(value: object, place: Place = ()) -> Iterator[Place]:
    yield place
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from _places(inner, (*place, key))


def _change(at: object, key: str | int, generator: random.Random) -> None:
    """Change what `at` holds under `key`."""
    assert isinstance(at, dict | list)
    value, way = at[key], generator.randrange(8)  # type: ignore[index]
    anything = generator.choice((*_NUMBERS, *_WORDS, [], {}, [[]], [1, 2], ["x"], True))
    if isinstance(at, list) and way < 3:
        assert isinstance(key, int)
        (at.pop, lambda n: at.insert(n, copy.deepcopy(value)), lambda n: generator.shuffle(at))[way](key)
    elif isinstance(at, dict) and way == 3:
        at.pop(str(key))
    elif way == 4:
        at[key] = anything  # type: ignore[index]
    elif isinstance(value, bool):
        at[key] = not value  # type: ignore[index]
    elif isinstance(value, int | float):
        at[key] = generator.choice((*_NUMBERS, value * 2, value + 1, -value, float(value)))  # type: ignore[index]
    elif isinstance(value, str):
        at[key] = generator.choice(_WORDS)  # type: ignore[index]
    elif isinstance(value, dict):
        value[generator.choice(_WORDS)] = anything
    elif isinstance(value, list):
        value.append(anything)
