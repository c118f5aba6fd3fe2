"""Arrays that are no input, and names that would break out of generated code, given to the C core itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from benchmarks.processing.core_specifications import CLIP, IMAGE, NORMALIZE, Chain
from benchmarks.processing.hostile_cases import Tally, watched

from edgewright.core.errors import EdgewrightError
from edgewright.core.tensors import Array, TensorSpec
from edgewright.processing.c_host import CProcessor
from edgewright.processing.planning import Plan, plan
from edgewright.processing.processor import Processor
from edgewright.processing.signature import Signature
from edgewright.processing.specification import Flow, RawInput

_FLAGS = ("-std=c99", "-O0", "-ffp-contract=off")
_SERIES = RawInput(name="series", kind="series", shape=(4, 3))
_CHAINS = (
    Chain(name="image", raw=IMAGE, shape=(8, 8, 3), rows=({"step": "resize", "height": 8, "width": 8}, NORMALIZE)),
    Chain(name="clip", raw=CLIP, shape=(160,), rows=({"step": "fit_length", "samples": 160},)),
    Chain(name="series", raw=_SERIES, shape=(4, 3), rows=()),
)  # fmt: skip
_NAMES = (
    *("*/ #error x /*", "\\\n#error x", '"); abort(); ("', "??/\n", "%s%n", "a\0b", "\u202e", "int", "x" * 4000),
    *(" ", "", "default", "main"),
    *("${jndi:x}", "{{ 7 }}", "../../x", "<b>&amp;", "'; DROP TABLE x", "\u9ce5\U0001f426", "//", "\r", "a.b", "x[0]"),
)  # fmt: skip


def core(work: Path, tally: Tally) -> None:
    """Run all arrays and names."""
    for chain in _CHAINS:
        checked = chain.plan()
        in_c = CProcessor(checked, work / chain.name, flags=_FLAGS)
        for number, array in enumerate(_arrays()[chain.name]):
            _compare("arrays for the C core", f"{chain.name} {number}", checked, in_c, array, tally)
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    for number, name in enumerate(_NAMES):
        checked = _renamed(_CHAINS[0].plan(), name)
        with watched(tally, "names in C", repr(name[:40])):
            in_c = CProcessor(checked, work / f"name{number}", flags=_FLAGS)
            _compare("names in C", repr(name[:40]), checked, in_c, image, tally)


def _arrays() -> Mapping[str, Sequence[Array]]:
    return {
        "image": [
            *(np.zeros(shape, np.uint8) for shape in ((0, 5, 3), (5, 0, 3), (1, 1, 3), (4, 4), (4, 4, 4), (4, 4, 1))),
            *(np.zeros(shape, np.uint8) for shape in ((2, 4, 4, 3), (48,), (20_000, 1, 3), (1, 20_000, 3))),
            np.zeros((4, 4, 3), np.float32), np.zeros((4, 4, 3), np.int64), np.zeros((4, 4, 3), bool),
            np.zeros((40, 40, 3), np.uint8)[::2, ::2], np.zeros((3, 4, 4), np.uint8).transpose(1, 2, 0),
        ],
        "clip": [
            *(np.full(size, value, np.float32) for size in (1, 5, 200) for value in (0, np.nan, np.inf, -np.inf, 3e38)),
            np.zeros(0, np.float32), np.zeros((2, 2), np.float32), np.zeros(5), np.zeros(5, np.int16),
            np.arange(400, dtype=np.float32)[::2],
        ],
        "series": [
            *(np.zeros(shape, np.float32) for shape in ((4, 3), (3, 4), (4, 2), (12,), (1, 4, 3), (0, 3))),
            np.full((4, 3), np.nan, np.float32), np.zeros((4, 3), np.int32), np.zeros((4, 3)),
            np.arange(12, dtype=np.float32).reshape(3, 4).T,
        ],
    }  # fmt: skip


def _compare(kind: str, what: str, checked: Plan, in_c: CProcessor, array: Array, tally: Tally) -> None:
    """Count whether both take `array` and make the same of it, or both refuse it."""
    name = checked.specification.inputs[0].name
    made: list[Array | None] = []
    for number in range(2):
        try:
            if number:
                in_c.set_inputs({name: array})
            prepared = in_c.prepare() if number else Processor(checked).prepare({name: array})
            made.append(next(iter(prepared.values())))
        except EdgewrightError:
            made.append(None)
    of_numpy, of_c = made
    if of_numpy is None and of_c is None:
        tally.add(kind, "refused")
    elif of_numpy is None or of_c is None or not np.array_equal(of_numpy, of_c):
        tally.add_bad(kind, f"{what}: {array.dtype}{list(array.shape)} is another for numpy than for C")
    else:
        tally.add(kind, "right")


def _renamed(checked: Plan, name: str) -> Plan:
    """Return the plan for a model whose input and output have this name."""
    (old,) = checked.signatures.values()
    signature = Signature(
        inputs=(replace(old.inputs[0], name=name),),
        outputs=(TensorSpec(name=f"{name}y", shape=(1, 3), dtype="float32"),),
    )
    specification = checked.specification
    flow, result = specification.tensors[0], specification.results[0]
    return plan(
        replace(
            specification,
            tensors=(Flow(name=name, sources=flow.sources, steps=flow.steps),),
            results=(replace(result, sources=(f"{name}y",)),),
        ),
        signature,
    )
